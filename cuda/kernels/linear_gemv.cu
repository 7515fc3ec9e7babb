// Few rows: a block takes 16 outputs and all rows, a warp a slice of k (or several, if there are
// more slices than warps). Weights go from memory to registers; nobody else needs them.
#include "kernels/linear_fragments.h"

namespace llama_steer::cuda {
namespace {

constexpr int kOutputs = 16;
constexpr int kMaxWarps = 8;
constexpr int kTileRows = 8;  // rows of x in one mma
constexpr int kBatch = 4;     // chunks whose loads are under way together

struct SliceSum {
  float value[kOutputs][kTileRows];
};

template <class Weights, int kTiles>
struct Batch {
  typename Weights::Raw low[kBatch];
  typename Weights::Raw high[kBatch];
  typename Weights::Scales scales[kBatch];
  uint4 x[kBatch][kTiles];
};

/// The sum of one slice, all in one accumulator a tile.
template <class Weights, int kTiles>
__device__ __forceinline__ void SumSlice(const LinearParams& params, const WeightView& weight,
                                         int64_t first_output, int64_t slice,
                                         FragmentD (&acc)[kTiles]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int g = lane / 4;
  const int c = lane % 4;
  const int64_t last_output = weight.rows - 1;
  const int64_t low_row = first_output + g <= last_output ? first_output + g : last_output;
  const int64_t high_row = first_output + g + 8 <= last_output ? first_output + g + 8 : last_output;
  const auto* data = static_cast<const uint8_t*>(weight.data);
  const int64_t lane_k = c * (kChunkK / 4);
  const uint8_t* low = data + (low_row * weight.stride + lane_k) * Weights::kBytes;
  const uint8_t* high = data + (high_row * weight.stride + lane_k) * Weights::kBytes;
  const __nv_bfloat16* x[kTiles];
  LLAMA_STEER_UNROLL
  for (int t = 0; t < kTiles; ++t) {
    const int64_t row = t * kTileRows + g < params.rows ? t * kTileRows + g : params.rows - 1;
    x[t] = params.x.rounded + row * params.x.rounded_stride + lane_k;
    acc[t] = {{0.0f, 0.0f, 0.0f, 0.0f}};
  }

  const int64_t chunks = weight.stride / kChunkK;
  const int64_t end = (slice + 1) * kChunksOfSlice < chunks ? (slice + 1) * kChunksOfSlice : chunks;
  for (int64_t first = slice * kChunksOfSlice; first < end; first += kBatch) {
    Batch<Weights, kTiles> batch;
    LLAMA_STEER_UNROLL
    for (int i = 0; i < kBatch; ++i) {
      const int64_t chunk = first + i;
      if (chunk >= end) break;
      const int64_t k = chunk * kChunkK;
      using Raw = typename Weights::Raw;
      batch.low[i] = LoadStreaming(reinterpret_cast<const Raw*>(low + k * Weights::kBytes));
      batch.high[i] = LoadStreaming(reinterpret_cast<const Raw*>(high + k * Weights::kBytes));
      batch.scales[i] = Weights::LoadScales(weight, low_row, high_row, chunk);
      LLAMA_STEER_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        batch.x[i][t] = *reinterpret_cast<const uint4*>(x[t] + k);
      }
    }
    LLAMA_STEER_UNROLL
    for (int i = 0; i < kBatch; ++i) {
      if (first + i >= end) break;
      FragmentA a[2];
      Weights::Unpack(batch.low[i], batch.high[i], a);
      LLAMA_STEER_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        FragmentB b[2];
        ChunkB(batch.x[i][t], b);
        Weights::Accumulate(acc[t], a, b, batch.scales[i]);
      }
    }
  }
}

template <class Weights, int kTiles>
__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kMaxWarps* kWarpThreads)
    LinearGemvKernel(LinearParams params) {
  int64_t tile = blockIdx.x;
  const LinearTargetView& target = params.targets[TargetOfTile(params, kOutputs, tile)];
  const int64_t first_output = tile * kOutputs;
  const int64_t slices = (target.weight.stride + kSliceK - 1) / kSliceK;
  const auto warps = static_cast<int64_t>(blockDim.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  auto* sums = SharedMemory<SliceSum>();  // [slices, kTiles]

  for (int64_t slice = threadIdx.x / kWarpThreads; slice < slices; slice += warps) {
    FragmentD acc[kTiles];
    SumSlice<Weights, kTiles>(params, target.weight, first_output, slice, acc);
    LLAMA_STEER_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      LLAMA_STEER_UNROLL
      for (int i = 0; i < 4; ++i) {
        sums[slice * kTiles + t].value[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] =
            acc[t].value[i];
      }
    }
  }
  __syncthreads();

  for (int e = static_cast<int>(threadIdx.x); e < kTiles * kTileRows * kOutputs;
       e += static_cast<int>(blockDim.x)) {
    const int64_t output = e % kOutputs;
    const int64_t row = e / kOutputs;
    if (row >= params.rows || first_output + output >= target.weight.rows) continue;
    float sum = 0.0f;
    for (int64_t slice = 0; slice < slices; ++slice) {
      sum += sums[slice * kTiles + row / kTileRows].value[output][row % kTileRows];
    }
    StoreOutput<Weights>(target, row, first_output + output, sum);
  }
}

template <class Weights, int kTiles>
cudaError_t LaunchFor(const LinearParams& params, cudaStream_t stream) {
  int64_t tiles = 0;
  for (int i = 0; i < params.target_count; ++i) {
    tiles += (params.targets[i].weight.rows + kOutputs - 1) / kOutputs;
  }
  const int64_t slices = (params.x.rounded_stride + kSliceK - 1) / kSliceK;
  // As many rounds as eight warps need, and no more warps than those rounds fill.
  const int64_t rounds = (slices + kMaxWarps - 1) / kMaxWarps;
  const int64_t warps = (slices + rounds - 1) / rounds;
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(tiles), 1, 1};
  shape.threads = static_cast<unsigned>(warps * kWarpThreads);
  shape.shared_bytes = static_cast<size_t>(slices) * kTiles * sizeof(SliceSum);
  return Launch<LinearGemvKernel<Weights, kTiles>>(shape, stream, params);
}

template <class Weights>
cudaError_t LaunchForRows(const LinearParams& params, cudaStream_t stream) {
  if (params.rows <= kTileRows) return LaunchFor<Weights, 1>(params, stream);
  return LaunchFor<Weights, 2>(params, stream);
}

}  // namespace

cudaError_t LinearGemv(const LinearParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  if (params.rows > kMaxGemvRows) return cudaErrorInvalidValue;
  return WithWeights(params.targets[0].weight.dtype, [&](auto weights) {
    return LaunchForRows<decltype(weights)>(params, stream);
  });
}

}  // namespace llama_steer::cuda
