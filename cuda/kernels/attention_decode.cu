// Attention of generation: a block takes one split of the context of one sequence and key/value
// head, and all rows of the group; its four warps share each tile, by tokens in the first product
// and by dims in the second. A second kernel merges the splits.
#include "kernels/attention_tile.h"

namespace llama_steer::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kTokenTilesOfWarp = kTokenTiles / kWarps;
constexpr int kWeightStride = kTileTokens + 8;  // bf16; rows start in different banks

template <int kHeadSize>
struct Shared {
  KvTile<kHeadSize> tiles[2];
  __nv_bfloat16 weights[kTileRows][kWeightStride];
  float largest[kWarps][kTileRows];
};

template <int kHeadSize>
struct SplitRows {
  static constexpr int kPairs = (kHeadSize / 16 + kWarps - 1) / kWarps;  // of a warp
  QueryFragments<kHeadSize> query;
  int32_t position[2];
  FragmentD sum[kPairs][2];
  FragmentD total;
  float largest[2];
};

__device__ __forceinline__ Bf16Pair LoadPair(const __nv_bfloat16* from) {
  return *reinterpret_cast<const Bf16Pair*>(from);
}

/// This warp's tokens become weights in shared memory; returns the factor of what was summed.
template <int kHeadSize>
__device__ __forceinline__ void WeighTile(const KvTile<kHeadSize>& kv, int32_t first_token,
                                          float scale, Shared<kHeadSize>& shared,
                                          SplitRows<kHeadSize>& rows, float (&correction)[2]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int g = lane / 4;
  const int c = lane % 4;
  FragmentD scores[kTokenTilesOfWarp];
  float largest[2] = {MinusInfinity(), MinusInfinity()};
  LLAMA_STEER_UNROLL
  for (int t = 0; t < kTokenTilesOfWarp; ++t) {
    const int tile = warp * kTokenTilesOfWarp + t;
    scores[t] = ScoreTokens(rows.query, kv, tile, scale);
    MaskScores(scores[t], first_token + tile * 8, rows.position);
    LLAMA_STEER_UNROLL
    for (int i = 0; i < 4; ++i) largest[i / 2] = fmaxf(largest[i / 2], scores[t].value[i]);
  }
  LLAMA_STEER_UNROLL
  for (int half = 0; half < 2; ++half) {
    largest[half] = QuadMax(largest[half]);
    if (c == 0) shared.largest[warp][g + 8 * half] = largest[half];
  }
  __syncthreads();
  float shift[2];
  LLAMA_STEER_UNROLL
  for (int half = 0; half < 2; ++half) {
    float all = rows.largest[half];
    LLAMA_STEER_UNROLL
    for (int w = 0; w < kWarps; ++w) all = fmaxf(all, shared.largest[w][g + 8 * half]);
    shift[half] = Finite(all);
    correction[half] = Exp2Approx(rows.largest[half] - shift[half]);
    rows.largest[half] = all;
  }
  LLAMA_STEER_UNROLL
  for (int t = 0; t < kTokenTilesOfWarp; ++t) {
    LLAMA_STEER_UNROLL
    for (int half = 0; half < 2; ++half) {
      __nv_bfloat16* to = &shared.weights[g + 8 * half][(warp * kTokenTilesOfWarp + t) * 8 + 2 * c];
      *reinterpret_cast<Bf16Pair*>(to) =
          PackBf16(Exp2Approx(scores[t].value[2 * half] - shift[half]),
                   Exp2Approx(scores[t].value[2 * half + 1] - shift[half]));
    }
  }
  __syncthreads();
}

template <int kHeadSize>
__device__ __forceinline__ void SumTile(const KvTile<kHeadSize>& kv, int32_t first_token,
                                        bool broken, const Shared<kHeadSize>& shared,
                                        const float (&correction)[2], SplitRows<kHeadSize>& rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int g = lane / 4;
  const int c = lane % 4;
  WeightFragments weights;
  LLAMA_STEER_UNROLL
  for (int step = 0; step < kTokenSteps; ++step) {
    const int token = step * 16 + 2 * c;
    weights.a[step] = {
        {LoadPair(&shared.weights[g][token]), LoadPair(&shared.weights[g + 8][token]),
         LoadPair(&shared.weights[g][token + 8]), LoadPair(&shared.weights[g + 8][token + 8])}};
  }
  ScaleRows(rows.total, correction);
  AddTotals(rows.total, weights);
  LLAMA_STEER_UNROLL
  for (int i = 0; i < SplitRows<kHeadSize>::kPairs; ++i) {
    const int pair = i * kWarps + warp;
    if (pair >= kHeadSize / 16) break;
    ScaleRows(rows.sum[i][0], correction);
    ScaleRows(rows.sum[i][1], correction);
    AddVisibleValues(rows.sum[i][0], rows.sum[i][1], weights, kv, pair, broken, first_token,
                     rows.position);
  }
}

template <int kHeadSize>
__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kWarps* kWarpThreads)
    AttentionDecodeKernel(AttentionDecodeParams all) {
  AllowNext();
  const AttentionParams& params = all.common;
  const auto split = static_cast<int32_t>(blockIdx.x);
  const auto kv_head = static_cast<int32_t>(blockIdx.y);
  const auto item = static_cast<int32_t>(blockIdx.z);
  const SequenceSpan span = params.spans[all.items[item]];
  const int32_t context = span.first_position + span.row_count;
  const int32_t begin = split * kSplitTokens;
  WaitForPrior();
  if (begin >= context) return;
  const int32_t end = begin + kSplitTokens < context ? begin + kSplitTokens : context;
  const int32_t group = params.query_heads / params.pages.kv_heads;
  const int32_t row_count = span.row_count * group;
  const int32_t* block_table = params.block_table + span.block_table_offset;
  auto& shared = *SharedMemory<Shared<kHeadSize>>();
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int g = lane / 4;
  const int c = lane % 4;

  SplitRows<kHeadSize> rows;
  const float* q[2];
  LLAMA_STEER_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int32_t row = g + 8 * half < row_count ? g + 8 * half : row_count - 1;
    q[half] = params.q + (static_cast<int64_t>(span.first_row + row / group) * params.query_heads +
                          kv_head * group + row % group) *
                             kHeadSize;
    rows.position[half] = span.first_position + row / group;
    rows.largest[half] = MinusInfinity();
  }
  rows.query.Load(q[0], q[1]);
  rows.total = {{0.0f, 0.0f, 0.0f, 0.0f}};
  LLAMA_STEER_UNROLL
  for (int i = 0; i < SplitRows<kHeadSize>::kPairs; ++i) {
    rows.sum[i][0] = rows.sum[i][1] = {{0.0f, 0.0f, 0.0f, 0.0f}};
  }

  const int32_t tiles = (end - begin + kTileTokens - 1) / kTileTokens;
  shared.tiles[0].Fill(params, block_table, kv_head, begin, end);
  CopyAsyncCommit();
  for (int32_t tile = 0; tile < tiles; ++tile) {
    const int32_t first_token = begin + tile * kTileTokens;
    if (tile + 1 < tiles) {
      shared.tiles[(tile + 1) % 2].Fill(params, block_table, kv_head, first_token + kTileTokens,
                                        end);
    }
    CopyAsyncCommit();
    CopyAsyncWait<1>();
    const KvTile<kHeadSize>& kv = shared.tiles[tile % 2];
    __syncthreads();
    bool broken = false;
    if (span.row_count > 1 && first_token + kTileTokens - 1 > span.first_position) {
      broken = __syncthreads_or(kv.HasBrokenValue() ? 1 : 0) != 0;
    }
    float correction[2];
    WeighTile(kv, first_token, params.scale * kLog2E, shared, rows, correction);
    SumTile(kv, first_token, broken, shared, correction, rows);
    __syncthreads();  // everyone has left the tile and the weights that are filled next
  }

  const int64_t place =
      (static_cast<int64_t>(item) * params.pages.kv_heads + kv_head) * all.max_splits + split;
  LLAMA_STEER_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int row = g + 8 * half;
    if (row >= row_count) continue;
    const int64_t index = place * kDecodeRows + row;
    if (warp == 0 && c == 0) {
      all.states[index] = {rows.largest[half], rows.total.value[2 * half]};
    }
    LLAMA_STEER_UNROLL
    for (int i = 0; i < SplitRows<kHeadSize>::kPairs; ++i) {
      const int pair = i * kWarps + warp;
      if (pair >= kHeadSize / 16) break;
      LLAMA_STEER_UNROLL
      for (int j = 0; j < 4; ++j) {
        const int dim = pair * 16 + j / 2 * 8 + 2 * c + j % 2;
        all.sums[index * kHeadSize + dim] = rows.sum[i][j / 2].value[2 * half + j % 2];
      }
    }
  }
}

/// One block a row and query head, one thread a dim: splits in rising order.
__global__ void AttentionMergeKernel(AttentionDecodeParams all) {
  AllowNext();
  const AttentionParams& params = all.common;
  const auto item = static_cast<int32_t>(blockIdx.z);
  const auto kv_head = static_cast<int32_t>(blockIdx.y);
  const auto row = static_cast<int32_t>(blockIdx.x);
  const auto dim = static_cast<int32_t>(threadIdx.x);
  const SequenceSpan span = params.spans[all.items[item]];
  const int32_t group = params.query_heads / params.pages.kv_heads;
  const int32_t head_size = params.pages.head_size;
  WaitForPrior();
  if (row >= span.row_count * group) return;
  const int32_t position = span.first_position + row / group;
  const int32_t splits = position / kSplitTokens + 1;
  const int64_t place =
      (static_cast<int64_t>(item) * params.pages.kv_heads + kv_head) * all.max_splits;
  const auto state_of = [&](int32_t split) {
    return all.states[(place + split) * kDecodeRows + row];
  };
  const auto sum_of = [&](int32_t split) {
    return all.sums[((place + split) * kDecodeRows + row) * head_size + dim];
  };
  float largest = state_of(0).largest;
  float total = state_of(0).total;
  float sum = sum_of(0);
  for (int32_t split = 1; split < splits; ++split) {
    const SplitState later = state_of(split);
    const MergeFactors factors = Merge(largest, later.largest);
    largest = factors.largest;
    total = Merged(factors, total, later.total);
    sum = Merged(factors, sum, sum_of(split));
  }
  const int64_t step_row = span.first_row + row / group;
  const int64_t col = static_cast<int64_t>(kv_head * group + row % group) * head_size + dim;
  const float value = sum / total;
  params.output[step_row * params.query_heads * head_size + col] = value;
  params.rounded[step_row * params.rounded_stride + col] = __float2bfloat16_rn(value);
}

template <int kHeadSize>
cudaError_t LaunchFor(const AttentionDecodeParams& params, cudaStream_t stream) {
  const auto kv_heads = static_cast<unsigned>(params.common.pages.kv_heads);
  const auto items = static_cast<unsigned>(params.item_count);
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(params.max_splits), kv_heads, items};
  shape.threads = kWarps * kWarpThreads;
  shape.shared_bytes = sizeof(Shared<kHeadSize>);
  shape.overlaps = true;
  const cudaError_t error = Launch<AttentionDecodeKernel<kHeadSize>>(shape, stream, params);
  if (error != cudaSuccess) return error;
  LaunchShape merge;
  merge.grid = {kDecodeRows, kv_heads, items};
  merge.threads = kHeadSize;
  merge.overlaps = true;
  return Launch<AttentionMergeKernel>(merge, stream, params);
}

}  // namespace

cudaError_t AttentionDecode(const AttentionDecodeParams& params, cudaStream_t stream) {
  if (params.item_count == 0) return cudaSuccess;
  return WithHeadSize(params.common.pages.head_size, [&](auto head_size) {
    return LaunchFor<decltype(head_size)::value>(params, stream);
  });
}

}  // namespace llama_steer::cuda
