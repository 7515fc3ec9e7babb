#include "backend/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention.cc"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway asks.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "backend/cpu/simd_load.h"

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

constexpr int kPage = kPageTokens;
constexpr int kMaxHeadSize = 256;

/// Running softmax of one tile.
struct TileState {
  HWY_ALIGN float query[kTileRows][kMaxHeadSize];  // scaled
  HWY_ALIGN float sum[kTileRows][kMaxHeadSize];    // of p * v
  HWY_ALIGN float weights[kTileRows][kPage];       // p of the current page
  float largest[kTileRows];
  float total[kTileRows];
  float correction[kTileRows];
};

/// weights[r][t] = q_r · k_t for the 16 tokens of a page; the sum runs over the head in order.
template <int kRows, class Row>
HWY_INLINE void PageScores(TileState& state, const Row& keys, int32_t head_size) {
  const DF d;
  const size_t lanes = std::min<size_t>(Lanes(), kPage);
  for (size_t t = 0; t < kPage; t += lanes) {
    VF acc[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) acc[r] = hn::Zero(d);
    for (int32_t i = 0; i < head_size; ++i) {
      const VF k = keys.Load(d, static_cast<size_t>(i) * kPage + t);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        acc[r] = hn::MulAdd(hn::Set(d, state.query[r][i]), k, acc[r]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) hn::StoreU(acc[r], d, &state.weights[r][t]);
  }
}

/// Turns the scores of the first `visible` tokens into weights and updates maximum and total.
HWY_INLINE void PageSoftmax(TileState& state, int r, int32_t visible) {
  const DF d;
  const size_t lanes = std::min<size_t>(Lanes(), kPage);
  float* HWY_RESTRICT p = state.weights[r];
  for (int32_t t = visible; t < kPage; ++t) p[t] = -std::numeric_limits<float>::infinity();
  float largest = state.largest[r];
  for (int32_t t = 0; t < visible; ++t) largest = std::max(largest, p[t]);

  VF sums = hn::Zero(d);
  for (size_t t = 0; t < kPage; t += lanes) {
    const VF e = hn::Exp(d, hn::Sub(hn::LoadU(d, p + t), hn::Set(d, largest)));
    hn::StoreU(e, d, p + t);
    sums = hn::Add(sums, e);
  }
  HWY_ALIGN float shift[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(hn::Exp(d, hn::Set(d, state.largest[r] - largest)), d, shift);
  const bool first = std::isinf(state.largest[r]) && state.largest[r] < 0.0f;
  state.correction[r] = first ? 0.0f : shift[0];
  state.largest[r] = largest;
  state.total[r] = state.total[r] * state.correction[r] + ReduceLanes(d, sums);
}

/// sum[r] = sum[r] * correction[r] + Σ_t weights[r][t] * v_t over the first `visible` tokens.
template <int kRows, class Row>
HWY_INLINE void PageValues(TileState& state, const Row& values, int32_t head_size,
                           int32_t visible) {
  const DF d;
  const int32_t lanes = static_cast<int32_t>(Lanes());
  for (int32_t i = 0; i < head_size; i += lanes) {
    VF acc[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      acc[r] = hn::Mul(hn::LoadU(d, &state.sum[r][i]), hn::Set(d, state.correction[r]));
    }
    for (int32_t t = 0; t < visible; ++t) {
      const VF v = values.Load(d, static_cast<size_t>(t * head_size + i));
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        acc[r] = hn::MulAdd(hn::Set(d, state.weights[r][t]), v, acc[r]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) hn::StoreU(acc[r], d, &state.sum[r][i]);
  }
}

HWY_INLINE RowF32 RowAt(const float* data) { return RowF32{data}; }
HWY_INLINE RowBF16 RowAt(const uint16_t* data) { return RowBF16{data}; }

template <int kRows, class Element>
void TilePages(const AttentionTile& tile, TileState& state) {
  const int32_t last_position = *std::max_element(tile.position, tile.position + kRows);
  for (int32_t page = 0; page * kPage <= last_position; ++page) {
    const auto* keys = reinterpret_cast<const Element*>(
        tile.cache->Page(tile.layer, tile.block_table[page], tile.kv_head));
    PageScores<kRows>(state, RowAt(keys), tile.head_size);
    for (int r = 0; r < kRows; ++r) {
      const int32_t visible = std::min(kPage, tile.position[r] + 1 - page * kPage);
      if (visible > 0) {
        PageSoftmax(state, r, visible);
      } else {  // the whole page lies past this row: nothing changes
        std::fill_n(state.weights[r], kPage, 0.0f);
        state.correction[r] = 1.0f;
      }
    }
    const int32_t visible = std::min(kPage, last_position + 1 - page * kPage);
    PageValues<kRows>(state, RowAt(keys + kPage * tile.head_size), tile.head_size, visible);
  }
}

template <class Element>
void TileRows(const AttentionTile& tile, TileState& state) {
  using Pages = void (*)(const AttentionTile&, TileState&);
  static constexpr Pages kPages[kTileRows + 1] = {nullptr,
                                                  TilePages<1, Element>,
                                                  TilePages<2, Element>,
                                                  TilePages<3, Element>,
                                                  TilePages<4, Element>,
                                                  TilePages<5, Element>,
                                                  TilePages<6, Element>,
                                                  TilePages<7, Element>,
                                                  TilePages<8, Element>};
  kPages[tile.row_count](tile, state);
}

void RunTile(const AttentionTile& tile) {
  TileState state;
  for (int32_t r = 0; r < tile.row_count; ++r) {
    for (int32_t i = 0; i < tile.head_size; ++i) {
      state.query[r][i] = tile.query[r][i] * tile.scale;
    }
    std::fill_n(state.sum[r], tile.head_size, 0.0f);
    state.largest[r] = -std::numeric_limits<float>::infinity();
    state.total[r] = 0.0f;
  }
  if (tile.cache->shape.dtype == DType::kF32) {
    TileRows<float>(tile, state);
  } else {
    TileRows<uint16_t>(tile, state);
  }
  for (int32_t r = 0; r < tile.row_count; ++r) {
    for (int32_t i = 0; i < tile.head_size; ++i) {
      tile.output[r][i] = state.sum[r][i] / state.total[r];
    }
  }
}

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llama_steer::cpu {
namespace {
HWY_EXPORT(RunTile);
}  // namespace

void Attention(const StepTables& step, int32_t layer, const float* q, int32_t query_heads,
               const CpuKvCache& cache, float* output, ThreadPool& pool) {
  const int32_t head_size = cache.shape.head_size;
  const int32_t group = query_heads / cache.shape.kv_heads;
  const int64_t width = static_cast<int64_t>(query_heads) * head_size;

  std::vector<AttentionTile> tiles;
  for (const SequenceSpan& span : step.sequences) {
    const int32_t rows = span.row_count * group;
    for (int32_t kv_head = 0; kv_head < cache.shape.kv_heads; ++kv_head) {
      for (int32_t first = 0; first < rows; first += kTileRows) {
        AttentionTile tile;
        tile.cache = &cache;
        tile.block_table = step.block_table.data() + span.block_table_offset;
        tile.layer = layer;
        tile.kv_head = kv_head;
        tile.head_size = head_size;
        tile.row_count = std::min(kTileRows, rows - first);
        tile.scale = 1.0f / std::sqrt(static_cast<float>(head_size));
        for (int32_t r = 0; r < tile.row_count; ++r) {
          const int32_t token = (first + r) / group;
          const int32_t head = kv_head * group + (first + r) % group;
          const int64_t offset = (span.first_row + token) * width + head * head_size;
          tile.query[r] = q + offset;
          tile.output[r] = output + offset;
          tile.position[r] = span.first_position + token;
        }
        tiles.push_back(tile);
      }
    }
  }
  pool.ParallelFor(static_cast<int64_t>(tiles.size()), [&](int64_t index, int32_t) {
    HWY_DYNAMIC_DISPATCH(RunTile)(tiles[static_cast<size_t>(index)]);
  });
}

}  // namespace llama_steer::cpu
#endif
