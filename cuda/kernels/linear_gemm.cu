// Many rows: tiles of outputs and rows, operands through a ring of shared memory filled by
// asynchronous copies.
#include "kernels/linear_fragments.h"

namespace llama_steer::cuda {
namespace {

constexpr int kStages = 3;
constexpr int kStageK = 64;  // two chunks
constexpr int kStagesOfSlice = kSliceK / kStageK;
constexpr int kVectorBytes = 16;

/// A block of kOutputs x kRows on kWarpsM x kWarpsN warps.
template <class Weights, int kOutputs, int kRows, int kWarpsM, int kWarpsN>
struct Tiling {
  static constexpr int kThreads = kWarpsM * kWarpsN * kWarpThreads;
  static constexpr int kTilesM = kOutputs / kWarpsM / 16;  // mma tiles of a warp
  static constexpr int kTilesN = kRows / kWarpsN / 8;
  static constexpr int kWeightRowBytes = kStageK * Weights::kBytes;
  static constexpr int kRowBytes = kStageK * 2;
  static constexpr int kWeightBytes = kOutputs * kWeightRowBytes;
  static constexpr int kStageBytes = kWeightBytes + kRows * kRowBytes;
  static constexpr size_t kSharedBytes = size_t{kStages} * kStageBytes;
};

/// Where vector `vector` of a row lies: rows of 128 bytes fill all banks, so odd rows swap halves,
/// and the eight lanes that load together meet no bank twice.
__device__ __forceinline__ int Swizzled(int row, int vector, int row_bytes) {
  return row * row_bytes + ((row_bytes == 128 ? vector ^ ((row & 1) << 2) : vector)) * kVectorBytes;
}

/// Starts the copies of one stage; rows past the end become zeros.
template <class T>
__device__ __forceinline__ void FillStage(const uint8_t* weights, int64_t weight_rows,
                                          int64_t weight_stride_bytes, const uint8_t* x,
                                          int64_t x_rows, int64_t x_stride_bytes, uint8_t* stage) {
  constexpr int kWeightVectors = T::kWeightRowBytes / kVectorBytes;
  constexpr int kXVectors = T::kRowBytes / kVectorBytes;
  const auto thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < T::kWeightBytes / kVectorBytes; i += T::kThreads) {
    const int row = i / kWeightVectors;
    const int vector = i % kWeightVectors;
    CopyAsync16(stage + Swizzled(row, vector, T::kWeightRowBytes),
                weights + row * weight_stride_bytes + vector * kVectorBytes, row < weight_rows);
  }
  uint8_t* x_stage = stage + T::kWeightBytes;
  for (int i = thread; i < (T::kStageBytes - T::kWeightBytes) / kVectorBytes; i += T::kThreads) {
    const int row = i / kXVectors;
    const int vector = i % kXVectors;
    CopyAsync16(x_stage + Swizzled(row, vector, T::kRowBytes),
                x + row * x_stride_bytes + vector * kVectorBytes, row < x_rows);
  }
}

template <class Weights>
__device__ __forceinline__ typename Weights::Raw LoadRaw(const uint8_t* stage, int row, int chunk,
                                                         int c) {
  using Raw = typename Weights::Raw;
  // Lane c's values of a chunk: a whole vector of bf16, half a vector of int8.
  const int byte = (chunk * 4 + c) * static_cast<int>(sizeof(Raw));
  const int row_bytes = kStageK * Weights::kBytes;
  return *reinterpret_cast<const Raw*>(stage + Swizzled(row, byte / kVectorBytes, row_bytes) +
                                       byte % kVectorBytes);
}

template <class Weights, int kOutputs, int kRows, int kWarpsM, int kWarpsN>
__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kWarpsM* kWarpsN* kWarpThreads)
    LinearGemmKernel(LinearParams params) {
  using T = Tiling<Weights, kOutputs, kRows, kWarpsM, kWarpsN>;
  int64_t tile = blockIdx.x;
  const LinearTargetView& target = params.targets[TargetOfTile(params, kOutputs, tile)];
  const WeightView& weight = target.weight;
  const int64_t first_output = tile * kOutputs;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRows;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int g = lane / 4;
  const int c = lane % 4;
  const int warp_output = warp / kWarpsN * (T::kTilesM * 16);
  const int warp_row = warp % kWarpsN * (T::kTilesN * 8);

  auto* ring = SharedMemory<uint8_t>();
  const auto* weights =
      static_cast<const uint8_t*>(weight.data) + first_output * weight.stride * Weights::kBytes;
  const auto* x =
      reinterpret_cast<const uint8_t*>(params.x.rounded + first_row * params.x.rounded_stride);
  const auto fill = [&](int64_t step) {
    FillStage<T>(weights + step * T::kWeightRowBytes, weight.rows - first_output,
                 weight.stride * Weights::kBytes, x + step * T::kRowBytes, params.rows - first_row,
                 params.x.rounded_stride * 2, ring + step % kStages * T::kStageBytes);
  };

  FragmentD acc[T::kTilesM][T::kTilesN];    // of the slice
  FragmentD total[T::kTilesM][T::kTilesN];  // of the slices before it
  LLAMA_STEER_UNROLL
  for (int m = 0; m < T::kTilesM; ++m) {
    LLAMA_STEER_UNROLL
    for (int n = 0; n < T::kTilesN; ++n) {
      acc[m][n] = {{0.0f, 0.0f, 0.0f, 0.0f}};
      total[m][n] = {{0.0f, 0.0f, 0.0f, 0.0f}};
    }
  }
  const auto close_slice = [&] {
    LLAMA_STEER_UNROLL
    for (int m = 0; m < T::kTilesM; ++m) {
      LLAMA_STEER_UNROLL
      for (int n = 0; n < T::kTilesN; ++n) {
        LLAMA_STEER_UNROLL
        for (int i = 0; i < 4; ++i) {
          total[m][n].value[i] += acc[m][n].value[i];
          acc[m][n].value[i] = 0.0f;
        }
      }
    }
  };

  const int64_t steps = weight.stride / kStageK;
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) fill(step);
    CopyAsyncCommit();
  }
  for (int64_t step = 0; step < steps; ++step) {
    CopyAsyncWait<kStages - 2>();
    __syncthreads();  // this stage is filled, and everyone has left the one that is filled next
    if (step + kStages - 1 < steps) fill(step + kStages - 1);
    CopyAsyncCommit();
    if (step > 0 && step % kStagesOfSlice == 0) close_slice();
    const uint8_t* stage = ring + step % kStages * T::kStageBytes;
    const uint8_t* x_stage = stage + T::kWeightBytes;
    LLAMA_STEER_UNROLL
    for (int chunk = 0; chunk < kStageK / kChunkK; ++chunk) {
      uint4 row_values[T::kTilesN];
      LLAMA_STEER_UNROLL
      for (int n = 0; n < T::kTilesN; ++n) {
        row_values[n] = *reinterpret_cast<const uint4*>(
            x_stage + Swizzled(warp_row + n * 8 + g, chunk * 4 + c, T::kRowBytes));
      }
      LLAMA_STEER_UNROLL
      for (int m = 0; m < T::kTilesM; ++m) {
        const int low = warp_output + m * 16 + g;
        FragmentA a[2];
        Weights::Unpack(LoadRaw<Weights>(stage, low, chunk, c),
                        LoadRaw<Weights>(stage, low + 8, chunk, c), a);
        const int64_t last = weight.rows - 1;
        const int64_t low_row = first_output + low < last ? first_output + low : last;
        const int64_t high_row = first_output + low + 8 < last ? first_output + low + 8 : last;
        const typename Weights::Scales scales =
            Weights::LoadScales(weight, low_row, high_row, step * (kStageK / kChunkK) + chunk);
        LLAMA_STEER_UNROLL
        for (int n = 0; n < T::kTilesN; ++n) {
          FragmentB b[2];
          ChunkB(row_values[n], b);
          Weights::Accumulate(acc[m][n], a, b, scales);
        }
      }
    }
  }
  close_slice();

  LLAMA_STEER_UNROLL
  for (int m = 0; m < T::kTilesM; ++m) {
    LLAMA_STEER_UNROLL
    for (int n = 0; n < T::kTilesN; ++n) {
      LLAMA_STEER_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int64_t output = first_output + warp_output + m * 16 + g + i / 2 * 8;
        const int64_t row = first_row + warp_row + n * 8 + c * 2 + i % 2;
        if (output < weight.rows && row < params.rows) {
          StoreOutput<Weights>(target, row, output, total[m][n].value[i]);
        }
      }
    }
  }
}

template <class Weights, int kOutputs, int kRows, int kWarpsM, int kWarpsN>
cudaError_t LaunchFor(const LinearParams& params, cudaStream_t stream) {
  using T = Tiling<Weights, kOutputs, kRows, kWarpsM, kWarpsN>;
  int64_t tiles = 0;
  for (int i = 0; i < params.target_count; ++i) {
    tiles += (params.targets[i].weight.rows + kOutputs - 1) / kOutputs;
  }
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(tiles),
                static_cast<unsigned>((params.rows + kRows - 1) / kRows), 1};
  shape.threads = T::kThreads;
  shape.shared_bytes = T::kSharedBytes;
  return Launch<LinearGemmKernel<Weights, kOutputs, kRows, kWarpsM, kWarpsN>>(shape, stream,
                                                                              params);
}

template <class Weights>
cudaError_t LaunchForRows(const LinearParams& params, cudaStream_t stream) {
  if (params.rows <= 64) return LaunchFor<Weights, 64, 64, 2, 2>(params, stream);
  // Scaled groups take registers that the larger tile has not got.
  constexpr int kRows = Weights::kDType == DType::kInt8 ? 64 : 128;
  return LaunchFor<Weights, 128, kRows, 4, 2>(params, stream);
}

}  // namespace

cudaError_t LinearGemm(const LinearParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  return WithWeights(params.targets[0].weight.dtype, [&](auto weights) {
    return LaunchForRows<decltype(weights)>(params, stream);
  });
}

}  // namespace llama_steer::cuda
