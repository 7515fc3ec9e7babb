#include "backend/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention.cc"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway asks.
#include <hwy/highway.h>

#include "backend/cpu/simd_exp.h"
#include "backend/cpu/simd_load.h"
#include "backend/cpu/simd_reduce.h"

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

constexpr int kPage = kPageTokens;

/// Running softmax of one tile.
struct TileState {
  HWY_ALIGN float query[kTileRows][kMaxHeadSize];  // scaled
  HWY_ALIGN float sum[kTileRows][kMaxHeadSize];    // of p * v
  HWY_ALIGN float weights[kTileRows][kPage];       // p of the current page
  float largest[kTileRows];
  float total[kTileRows];
  float correction[kTileRows];
};

/// weights[r][t] = q_r · k_t for the 16 tokens of a page and rows [first, first + kRows). Even and
/// odd elements of the head have an accumulator each, or one row alone would wait for its own sums.
template <int kRows, class Row>
HWY_INLINE void PageScores(TileState& state, int first, const Row& keys, int32_t head_size) {
  const DF d;
  for (size_t t = 0; t < kPage; t += Lanes()) {
    VF even[kRows];
    VF odd[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) even[r] = odd[r] = hn::Zero(d);
    for (int32_t i = 0; i < head_size; i += 2) {
      const VF k0 = keys.Load(d, static_cast<size_t>(i) * kPage + t);
      const VF k1 = keys.Load(d, static_cast<size_t>(i + 1) * kPage + t);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const float* q = state.query[first + r] + i;
        even[r] = hn::MulAdd(hn::Set(d, q[0]), k0, even[r]);
        odd[r] = hn::MulAdd(hn::Set(d, q[1]), k1, odd[r]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      hn::StoreU(hn::Add(even[r], odd[r]), d, &state.weights[first + r][t]);
    }
  }
}

/// Turns the scores of the first `visible` tokens into weights and updates maximum and total.
HWY_INLINE void PageSoftmax(TileState& state, int r, int32_t visible) {
  const DF d;
  float* HWY_RESTRICT p = state.weights[r];
  constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
  std::fill(p + visible, p + kPage, kMinusInfinity);
  VF page_largest = hn::Set(d, state.largest[r]);
  for (size_t t = 0; t < kPage; t += Lanes())
    page_largest = hn::Max(hn::Load(d, p + t), page_largest);
  page_largest = hn::MaxOfLanes(d, page_largest);

  VF sums = hn::Zero(d);
  for (size_t t = 0; t < kPage; t += Lanes()) {
    const VF e = Exponential(d, hn::Sub(hn::Load(d, p + t), page_largest));
    hn::Store(e, d, p + t);
    sums = hn::Add(sums, e);
  }
  // e^(-inf) = 0 on the first page: what was summed before counts for nothing.
  state.correction[r] =
      hn::GetLane(Exponential(d, hn::Sub(hn::Set(d, state.largest[r]), page_largest)));
  state.largest[r] = hn::GetLane(page_largest);
  state.total[r] = state.total[r] * state.correction[r] + ReduceLanes(sums);
}

/// One vector of every row's sum at element i of the head.
template <int kRows, class D, class Row>
HWY_INLINE void SumValues(D d, TileState& state, int first, const Row& values, int32_t head_size,
                          int32_t i, int32_t visible) {
  hn::Vec<D> acc[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    acc[r] =
        hn::Mul(hn::Load(d, &state.sum[first + r][i]), hn::Set(d, state.correction[first + r]));
  }
  for (int32_t t = 0; t < visible; ++t) {
    const hn::Vec<D> v = values.Load(d, static_cast<size_t>(t * head_size + i));
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      acc[r] = hn::MulAdd(hn::Set(d, state.weights[first + r][t]), v, acc[r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) hn::Store(acc[r], d, &state.sum[first + r][i]);
}

/// sum[r] = sum[r] * correction[r] + Σ_t weights[r][t] * v_t over the first `visible` tokens.
template <int kRows, class Row>
HWY_INLINE void PageValues(TileState& state, int first, const Row& values, int32_t head_size,
                           int32_t visible) {
  const auto lanes = static_cast<int32_t>(Lanes());
  int32_t i = 0;
  for (; i + lanes <= head_size; i += lanes) {
    SumValues<kRows>(DF(), state, first, values, head_size, i, visible);
  }
  for (; i < head_size; i += 4) {
    SumValues<kRows>(hn::CappedTag<float, 4>(), state, first, values, head_size, i, visible);
  }
}

HWY_INLINE RowF32 RowAt(const float* data) { return RowF32{data}; }
HWY_INLINE RowBF16 RowAt(const uint16_t* data) { return RowBF16{data}; }

/// A page of which rows [first, first + kRows) all see the first `visible` tokens.
template <int kRows, class Element>
HWY_INLINE void RunPage(TileState& state, int first, const Element* page, int32_t head_size,
                        int32_t visible) {
  PageScores<kRows>(state, first, RowAt(page), head_size);
  for (int r = first; r < first + kRows; ++r) PageSoftmax(state, r, visible);
  PageValues<kRows>(state, first, RowAt(page + kPage * head_size), head_size, visible);
}

template <int kRows, class Element>
void TilePages(const AttentionTile& tile, TileState& state) {
  const int32_t first_position = tile.position[0];  // rows are in rising order of position
  const int32_t last_position = tile.position[kRows - 1];
  for (int32_t page = 0; page * kPage <= last_position; ++page) {
    const auto* data = reinterpret_cast<const Element*>(
        tile.cache->Page(tile.layer, tile.block_table[page], tile.kv_head));
    const int32_t begin = page * kPage;
    if (first_position == last_position || begin + kPage - 1 <= first_position) {
      const int32_t visible = std::min(kPage, last_position + 1 - begin);
      RunPage<kRows>(state, 0, data, tile.head_size, visible);
      continue;
    }
    // The diagonal: each row sees its own number of tokens, and touches nothing past them.
    for (int r = 0; r < kRows; ++r) {
      const int32_t visible = std::min(kPage, tile.position[r] + 1 - begin);
      if (visible > 0) RunPage<1>(state, r, data, tile.head_size, visible);
    }
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
