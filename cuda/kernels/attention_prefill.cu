// Attention of prompts: a block takes 64 rows of (token, head of the group) of one key/value head,
// 16 a warp, and goes through the context tile by tile, the next tile on its way.
#include "kernels/attention_tile.h"

namespace llama_steer::cuda {
namespace {

constexpr int kWarps = kPrefillRows / kTileRows;

template <int kHeadSize>
struct Shared {
  KvTile<kHeadSize> tiles[2];
  // The splits before the current one: each thread keeps its own numbers, nobody shares them.
  float earlier[kHeadSize / 2][kWarps * kWarpThreads];
};

/// A warp's 16 rows.
template <int kHeadSize>
struct WarpRows {
  QueryFragments<kHeadSize> query;
  int64_t offset[2];    // of rows g and g + 8 in q and output; a multiple of the head size
  int32_t position[2];  // a row past the end stands where the last one does, and is not stored
  bool stored[2];
  FragmentD sum[kHeadSize / 8];
  FragmentD total;
  float largest[2];
  float earlier_largest[2];
  float earlier_total[2];
};

template <int kHeadSize>
__device__ __forceinline__ void LoadRows(const AttentionParams& params, const PrefillItem& item,
                                         int32_t kv_head, WarpRows<kHeadSize>& rows) {
  const SequenceSpan& span = params.spans[item.span];
  const int32_t group = params.query_heads / params.pages.kv_heads;
  const int32_t g = static_cast<int32_t>(threadIdx.x) % kWarpThreads / 4;
  const int32_t warp = static_cast<int32_t>(threadIdx.x) / kWarpThreads;
  LLAMA_STEER_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int32_t wanted = item.first + warp * kTileRows + g + half * 8;
    const int32_t last = span.row_count * group - 1;
    const int32_t row = wanted < last ? wanted : last;
    const int32_t token = row / group;
    const int64_t step_row = span.first_row + token;
    rows.offset[half] = (step_row * params.query_heads + kv_head * group + row % group) * kHeadSize;
    rows.position[half] = span.first_position + token;
    rows.stored[half] = wanted <= last;
  }
  rows.query.Load(params.q + rows.offset[0], params.q + rows.offset[1]);
}

template <int kHeadSize>
__device__ __forceinline__ void BeginSplit(WarpRows<kHeadSize>& rows) {
  LLAMA_STEER_UNROLL
  for (int i = 0; i < kHeadSize / 8; ++i) rows.sum[i] = {{0.0f, 0.0f, 0.0f, 0.0f}};
  rows.total = {{0.0f, 0.0f, 0.0f, 0.0f}};
  rows.largest[0] = rows.largest[1] = MinusInfinity();
}

/// Online softmax over one tile. `masked`: some row does not see all of it.
template <int kHeadSize>
__device__ __forceinline__ void AddTile(const KvTile<kHeadSize>& kv, int32_t first_token,
                                        bool masked, bool broken, float scale,
                                        WarpRows<kHeadSize>& rows) {
  FragmentD scores[kTokenTiles];
  float largest[2] = {rows.largest[0], rows.largest[1]};
  LLAMA_STEER_UNROLL
  for (int t = 0; t < kTokenTiles; ++t) {
    scores[t] = ScoreTokens(rows.query, kv, t, scale);
    if (masked) MaskScores(scores[t], first_token + t * 8, rows.position);
    LLAMA_STEER_UNROLL
    for (int i = 0; i < 4; ++i) largest[i / 2] = fmaxf(largest[i / 2], scores[t].value[i]);
  }
  float shift[2];
  float correction[2];
  LLAMA_STEER_UNROLL
  for (int half = 0; half < 2; ++half) {
    largest[half] = QuadMax(largest[half]);
    shift[half] = Finite(largest[half]);
    correction[half] = Exp2Approx(rows.largest[half] - shift[half]);
    rows.largest[half] = largest[half];
  }
  WeightFragments weights;
  LLAMA_STEER_UNROLL
  for (int t = 0; t < kTokenTiles; ++t) {
    FragmentA& a = weights.a[t / 2];
    LLAMA_STEER_UNROLL
    for (int half = 0; half < 2; ++half) {
      a.pair[t % 2 * 2 + half] = PackBf16(Exp2Approx(scores[t].value[2 * half] - shift[half]),
                                          Exp2Approx(scores[t].value[2 * half + 1] - shift[half]));
    }
  }
  ScaleRows(rows.total, correction);
  AddTotals(rows.total, weights);
  LLAMA_STEER_UNROLL
  for (int pair = 0; pair < kHeadSize / 16; ++pair) {
    FragmentD& low = rows.sum[2 * pair];
    FragmentD& high = rows.sum[2 * pair + 1];
    ScaleRows(low, correction);
    ScaleRows(high, correction);
    AddVisibleValues(low, high, weights, kv, pair, broken, first_token, rows.position);
  }
}

/// The split that ends here joins the ones before it, in rows that it concerns.
template <int kHeadSize>
__device__ __forceinline__ void EndSplit(int32_t split_begin, Shared<kHeadSize>& shared,
                                         WarpRows<kHeadSize>& rows) {
  const auto thread = static_cast<int>(threadIdx.x);
  const bool first = split_begin == 0;
  LLAMA_STEER_UNROLL
  for (int half = 0; half < 2; ++half) {
    if (split_begin > rows.position[half]) continue;
    const float total = rows.total.value[2 * half];
    MergeFactors factors = {rows.largest[half], 0.0f, 1.0f};
    if (!first) factors = Merge(rows.earlier_largest[half], rows.largest[half]);
    rows.earlier_largest[half] = factors.largest;
    rows.earlier_total[half] = first ? total : Merged(factors, rows.earlier_total[half], total);
    LLAMA_STEER_UNROLL
    for (int i = 0; i < kHeadSize / 4; ++i) {
      const float later = rows.sum[i / 2].value[2 * half + i % 2];
      float& earlier = shared.earlier[half * (kHeadSize / 4) + i][thread];
      earlier = first ? later : Merged(factors, earlier, later);
    }
  }
}

template <int kHeadSize>
__device__ __forceinline__ void StoreRows(const AttentionParams& params,
                                          const Shared<kHeadSize>& shared,
                                          const WarpRows<kHeadSize>& rows) {
  const auto thread = static_cast<int>(threadIdx.x);
  const int c = thread % 4;
  const int64_t width = static_cast<int64_t>(params.query_heads) * kHeadSize;
  LLAMA_STEER_UNROLL
  for (int half = 0; half < 2; ++half) {
    if (!rows.stored[half]) continue;
    const int64_t row = rows.offset[half] / width;
    const int64_t col = rows.offset[half] % width;
    LLAMA_STEER_UNROLL
    for (int i = 0; i < kHeadSize / 4; ++i) {
      const int dim = i / 2 * 8 + 2 * c + i % 2;
      const float value =
          shared.earlier[half * (kHeadSize / 4) + i][thread] / rows.earlier_total[half];
      params.output[rows.offset[half] + dim] = value;
      params.rounded[row * params.rounded_stride + col + dim] = __float2bfloat16_rn(value);
    }
  }
}

template <int kHeadSize>
__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kWarps* kWarpThreads)
    AttentionPrefillKernel(AttentionPrefillParams all) {
  const AttentionParams& params = all.common;
  const PrefillItem item = all.items[blockIdx.x];
  const auto kv_head = static_cast<int32_t>(blockIdx.y);
  const SequenceSpan span = params.spans[item.span];
  const int32_t group = params.query_heads / params.pages.kv_heads;
  const int32_t* block_table = params.block_table + span.block_table_offset;
  auto& shared = *SharedMemory<Shared<kHeadSize>>();

  // Of all rows of the block.
  const int32_t first_position = span.first_position + item.first / group;
  const int32_t last_row = span.row_count * group - 1;
  const int32_t end_row = item.first + kPrefillRows - 1;
  const int32_t end = span.first_position + (end_row < last_row ? end_row : last_row) / group + 1;
  const int32_t tiles = (end + kTileTokens - 1) / kTileTokens;
  constexpr int32_t kTilesOfSplit = kSplitTokens / kTileTokens;
  const float scale = params.scale * kLog2E;

  WarpRows<kHeadSize> rows;
  LoadRows(params, item, kv_head, rows);
  shared.tiles[0].Fill(params, block_table, kv_head, 0, end);
  CopyAsyncCommit();
  for (int32_t tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles) {
      shared.tiles[(tile + 1) % 2].Fill(params, block_table, kv_head, (tile + 1) * kTileTokens,
                                        end);
    }
    CopyAsyncCommit();
    CopyAsyncWait<1>();
    const KvTile<kHeadSize>& kv = shared.tiles[tile % 2];
    const int32_t first_token = tile * kTileTokens;
    const bool masked = first_token + kTileTokens - 1 > first_position;
    bool broken = false;
    __syncthreads();
    if (masked) broken = __syncthreads_or(kv.HasBrokenValue() ? 1 : 0) != 0;
    if (tile % kTilesOfSplit == 0) BeginSplit(rows);
    AddTile(kv, first_token, masked, broken, scale, rows);
    if (tile % kTilesOfSplit == kTilesOfSplit - 1 || tile + 1 == tiles) {
      EndSplit(tile / kTilesOfSplit * kSplitTokens, shared, rows);
    }
    __syncthreads();  // everyone has left the tile that is filled next
  }
  StoreRows(params, shared, rows);
}

template <int kHeadSize>
cudaError_t LaunchFor(const AttentionPrefillParams& params, cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(params.item_count),
                static_cast<unsigned>(params.common.pages.kv_heads), 1};
  shape.threads = kWarps * kWarpThreads;
  shape.shared_bytes = sizeof(Shared<kHeadSize>);
  return Launch<AttentionPrefillKernel<kHeadSize>>(shape, stream, params);
}

}  // namespace

cudaError_t AttentionPrefill(const AttentionPrefillParams& params, cudaStream_t stream) {
  if (params.item_count == 0) return cudaSuccess;
  return WithHeadSize(params.common.pages.head_size, [&](auto head_size) {
    return LaunchFor<decltype(head_size)::value>(params, stream);
  });
}

}  // namespace llama_steer::cuda
