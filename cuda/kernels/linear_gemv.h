// Projections of few rows: a block takes 16 outputs, or two times 16, and all rows, a warp a slice
// of k (or several, if there are more slices than warps). Weights go from memory to registers;
// nobody else needs them. An operation says which outputs a block takes, and what becomes of their
// sums.
#pragma once

#include "kernels/linear_fragments.h"

namespace llama_steer::cuda {

inline constexpr int kGemvOutputs = 16;
inline constexpr int kGemvMaxWarps = 8;
inline constexpr int kGemvTileRows = 8;  // rows of x in one mma
inline constexpr int kGemvLoads = 4;     // chunks of 16 outputs whose loads are under way together

/// 16 outputs of one target.
struct GemvPart {
  const LinearTargetView* target;
  int64_t first_output;
};

struct SliceSum {
  float value[kGemvOutputs][kGemvTileRows];
};

/// The chunks that a warp has under way.
template <class Weights, int kParts, int kTiles>
struct GemvBatch {
  static constexpr int kChunks = kGemvLoads / kParts;
  typename Weights::Raw low[kChunks][kParts];
  typename Weights::Raw high[kChunks][kParts];
  typename Weights::Scales scales[kChunks][kParts];
  uint4 x[kChunks][kTiles];
};

/// Two rows of a weight, of the outputs g and g + 8 of a part.
struct GemvRows {
  const uint8_t* low;
  const uint8_t* high;
  int64_t low_row;
  int64_t high_row;
};

template <class Weights>
__device__ __forceinline__ GemvRows RowsOf(const GemvPart& part, int g, int64_t lane_k) {
  const WeightView& weight = part.target->weight;
  const int64_t last_output = weight.rows - 1;
  const int64_t first = part.first_output + g;
  const int64_t low_row = first <= last_output ? first : last_output;
  const int64_t high_row = first + 8 <= last_output ? first + 8 : last_output;
  const auto* data = static_cast<const uint8_t*>(weight.data);
  return {data + (low_row * weight.stride + lane_k) * Weights::kBytes,
          data + (high_row * weight.stride + lane_k) * Weights::kBytes, low_row, high_row};
}

/// Starts loading the chunks [first, end), as many as a batch holds; the last one again where there
/// are fewer, so that nothing branches between the loads.
template <class Weights, int kParts, int kTiles>
__device__ __forceinline__ void LoadWeights(const GemvPart (&parts)[kParts],
                                            const GemvRows (&rows)[kParts], int64_t first,
                                            int64_t end,
                                            GemvBatch<Weights, kParts, kTiles>& batch) {
  using Raw = typename Weights::Raw;
  LLAMA_STEER_UNROLL
  for (int i = 0; i < GemvBatch<Weights, kParts, kTiles>::kChunks; ++i) {
    const int64_t chunk = first + i < end ? first + i : end - 1;
    const int64_t byte = chunk * kChunkK * Weights::kBytes;
    LLAMA_STEER_UNROLL
    for (int p = 0; p < kParts; ++p) {
      batch.low[i][p] = LoadStreaming(reinterpret_cast<const Raw*>(rows[p].low + byte));
      batch.high[i][p] = LoadStreaming(reinterpret_cast<const Raw*>(rows[p].high + byte));
      batch.scales[i][p] =
          Weights::LoadScales(parts[p].target->weight, rows[p].low_row, rows[p].high_row, chunk);
    }
  }
}

/// The sums of the chunks [begin, end), all in one accumulator a part and tile. `is_loaded`: the
/// weights of the first ones are in the batch already.
template <class Weights, int kParts, int kTiles>
__device__ __forceinline__ void SumSlice(const LinearParams& params,
                                         const GemvPart (&parts)[kParts],
                                         const GemvRows (&rows)[kParts], int64_t begin, int64_t end,
                                         bool is_loaded, GemvBatch<Weights, kParts, kTiles>& batch,
                                         FragmentD (&acc)[kParts][kTiles]) {
  using Batch = GemvBatch<Weights, kParts, kTiles>;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const __nv_bfloat16* x[kTiles];
  LLAMA_STEER_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    const int64_t row = t * kGemvTileRows + lane / 4;
    x[t] = params.x.rounded +
           (row < params.rows ? row : params.rows - 1) * params.x.rounded_stride +
           lane % 4 * (kChunkK / 4);
    LLAMA_STEER_UNROLL
    for (int p = 0; p < kParts; ++p) acc[p][t] = {{0.0f, 0.0f, 0.0f, 0.0f}};
  }

  for (int64_t first = begin; first < end; first += Batch::kChunks) {
    if (!is_loaded) LoadWeights(parts, rows, first, end, batch);
    is_loaded = false;
    LLAMA_STEER_UNROLL
    for (int i = 0; i < Batch::kChunks; ++i) {
      if (first + i >= end) break;
      LLAMA_STEER_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        batch.x[i][t] = *reinterpret_cast<const uint4*>(x[t] + (first + i) * kChunkK);
      }
    }
    LLAMA_STEER_UNROLL
    for (int i = 0; i < Batch::kChunks; ++i) {
      if (first + i >= end) break;
      FragmentB b[kTiles][2];
      LLAMA_STEER_UNROLL
      for (int t = 0; t < kTiles; ++t) ChunkB(batch.x[i][t], b[t]);
      LLAMA_STEER_UNROLL
      for (int p = 0; p < kParts; ++p) {
        FragmentA a[2];
        Weights::Unpack(batch.low[i][p], batch.high[i][p], a);
        LLAMA_STEER_UNROLL
        for (int t = 0; t < kTiles; ++t) {
          Weights::Accumulate(acc[p][t], a, b[t], batch.scales[i][p]);
        }
      }
    }
  }
}

/// `Operation` has
///   Params, with LinearOf(params): the projections, all of one type and of the same inputs
///   kParts, and Parts(params, block, parts): which outputs a block takes
///   Store<Weights>(params, parts, row, output, sums): what becomes of output `output` of each part
///   Blocks(params): of the grid
template <class Weights, int kTiles, class Operation>
__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kGemvMaxWarps* kWarpThreads)
    LinearGemvKernel(typename Operation::Params params) {
  constexpr int kParts = Operation::kParts;
  AllowNext();
  const LinearParams& linear = Operation::LinearOf(params);
  GemvPart parts[kParts];
  Operation::Parts(params, blockIdx.x, parts);
  const int64_t slices = (linear.x.rounded_stride + kSliceK - 1) / kSliceK;
  const auto warps = static_cast<int64_t>(blockDim.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  auto* sums = SharedMemory<SliceSum>();  // [slices, kTiles, kParts]
  GemvRows rows[kParts];
  LLAMA_STEER_UNROLL
  for (int p = 0; p < kParts; ++p) {
    rows[p] = RowsOf<Weights>(parts[p], lane / 4, lane % 4 * (kChunkK / 4));
  }
  const int64_t chunks = linear.x.rounded_stride / kChunkK;
  const auto end_of = [&](int64_t slice) {
    const int64_t end = (slice + 1) * kChunksOfSlice;
    return end < chunks ? end : chunks;
  };
  const int64_t first_slice = threadIdx.x / kWarpThreads;

  // The first weights are on their way while the kernel that makes x still runs.
  GemvBatch<Weights, kParts, kTiles> batch;
  LoadWeights(parts, rows, first_slice * kChunksOfSlice, end_of(first_slice), batch);
  WaitForPrior();
  for (int64_t slice = first_slice; slice < slices; slice += warps) {
    FragmentD acc[kParts][kTiles];
    SumSlice(linear, parts, rows, slice * kChunksOfSlice, end_of(slice), slice == first_slice,
             batch, acc);
    LLAMA_STEER_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      LLAMA_STEER_UNROLL
      for (int p = 0; p < kParts; ++p) {
        LLAMA_STEER_UNROLL
        for (int i = 0; i < 4; ++i) {
          sums[(slice * kTiles + t) * kParts + p]
              .value[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = acc[p][t].value[i];
        }
      }
    }
  }
  __syncthreads();

  for (int e = static_cast<int>(threadIdx.x); e < kTiles * kGemvTileRows * kGemvOutputs;
       e += static_cast<int>(blockDim.x)) {
    const int output = e % kGemvOutputs;
    const int64_t row = e / kGemvOutputs;
    if (row >= linear.rows || parts[0].first_output + output >= parts[0].target->weight.rows) {
      continue;
    }
    float sum[kParts];
    LLAMA_STEER_UNROLL
    for (int p = 0; p < kParts; ++p) sum[p] = 0.0f;
    for (int64_t slice = 0; slice < slices; ++slice) {
      const SliceSum* of_slice = sums + (slice * kTiles + row / kGemvTileRows) * kParts;
      LLAMA_STEER_UNROLL
      for (int p = 0; p < kParts; ++p) {
        sum[p] += of_slice[p].value[output][row % kGemvTileRows];
      }
    }
    Operation::template Store<Weights>(params, parts, row, output, sum);
  }
}

template <class Weights, int kTiles, class Operation>
cudaError_t LaunchGemvOf(const typename Operation::Params& params, cudaStream_t stream) {
  const LinearParams& linear = Operation::LinearOf(params);
  const int64_t slices = (linear.x.rounded_stride + kSliceK - 1) / kSliceK;
  // As many rounds as eight warps need, and no more warps than those rounds fill.
  const int64_t rounds = (slices + kGemvMaxWarps - 1) / kGemvMaxWarps;
  const int64_t warps = (slices + rounds - 1) / rounds;
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(Operation::Blocks(params)), 1, 1};
  shape.threads = static_cast<unsigned>(warps * kWarpThreads);
  shape.shared_bytes = static_cast<size_t>(slices) * kTiles * Operation::kParts * sizeof(SliceSum);
  shape.overlaps = true;
  return Launch<LinearGemvKernel<Weights, kTiles, Operation>>(shape, stream, params);
}

template <class Operation>
cudaError_t LaunchGemv(const typename Operation::Params& params, cudaStream_t stream) {
  const LinearParams& linear = Operation::LinearOf(params);
  if (linear.rows == 0) return cudaSuccess;
  if (linear.rows > kMaxGemvRows) return cudaErrorInvalidValue;
  return WithWeights(linear.targets[0].weight.dtype, [&](auto weights) {
    using Weights = decltype(weights);
    if (linear.rows <= kGemvTileRows) return LaunchGemvOf<Weights, 1, Operation>(params, stream);
    return LaunchGemvOf<Weights, 2, Operation>(params, stream);
  });
}

}  // namespace llama_steer::cuda
