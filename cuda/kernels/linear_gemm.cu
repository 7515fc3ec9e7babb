// Many rows: tiles of outputs and rows, operands through a ring of shared memory filled by
// asynchronous copies. Where there are fewer tiles than multiprocessors, several blocks share a
// tile: each takes some of its slices, and the last one to end adds up what all of them left, in
// the order in which one block alone would have.
#include <algorithm>

#include "kernels/linear_fragments.h"
#include "kernels/linear_split.h"

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
  static constexpr int kValues = kOutputs * kRows;
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

/// Starts the copies of kRows rows of kRowBytes of one stage; rows past the end become zeros.
template <int kRows, int kRowBytes, int kThreads>
__device__ __forceinline__ void FillRows(const uint8_t* from, int64_t rows, int64_t stride_bytes,
                                         uint8_t* stage) {
  constexpr int kVectors = kRowBytes / kVectorBytes;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kVectors; i += kThreads) {
    const int row = i / kVectors;
    const int vector = i % kVectors;
    CopyAsync16(stage + Swizzled(row, vector, kRowBytes),
                from + row * stride_bytes + vector * kVectorBytes, row < rows);
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

template <class Weights, int kOutputs, int kRows, int kWarpsM, int kWarpsN, bool kSplit>
__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kWarpsM* kWarpsN* kWarpThreads)
    LinearGemmKernel(LinearGemmParams all) {
  using T = Tiling<Weights, kOutputs, kRows, kWarpsM, kWarpsN>;
  AllowNext();
  const LinearParams& params = all.linear;
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
  const auto fill_weights = [&](int64_t step) {
    FillRows<kOutputs, T::kWeightRowBytes, T::kThreads>(
        weights + step * T::kWeightRowBytes, weight.rows - first_output,
        weight.stride * Weights::kBytes, ring + step % kStages * T::kStageBytes);
  };
  const auto fill_x = [&](int64_t step) {
    FillRows<kRows, T::kRowBytes, T::kThreads>(
        x + step * T::kRowBytes, params.rows - first_row, params.x.rounded_stride * 2,
        ring + step % kStages * T::kStageBytes + T::kWeightBytes);
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
  const auto split = static_cast<int>(blockIdx.z);
  float* partials = nullptr;  // of this tile
  if constexpr (kSplit) {
    partials = all.split.partials +
               static_cast<int64_t>(blockIdx.x) * all.split.PartialsOfTile() * T::kValues;
  }
  /// A first split sums up its slices, as a block alone does; the others leave each as it is.
  const auto close_slice = [&](int64_t slice) {
    if (kSplit && split > 0) {
      const int64_t place = 1 + slice - all.split.slices_of_one;
      StorePartial<T>(acc, partials + place * T::kValues);
    }
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

  int64_t begin = 0;
  int64_t end = weight.stride / kStageK;
  if constexpr (kSplit) {
    begin = static_cast<int64_t>(split) * all.split.slices_of_one * kStagesOfSlice;
    const int64_t after = begin + all.split.slices_of_one * kStagesOfSlice;
    end = after < end ? after : end;
  }
  const int64_t first_end = begin + kStages - 1;
  for (int64_t step = begin; step < first_end && step < end; ++step) fill_weights(step);
  WaitForPrior();
  for (int64_t step = begin; step < first_end; ++step) {
    if (step < end) fill_x(step);
    CopyAsyncCommit();  // the first one with all those weights
  }
  for (int64_t step = begin; step < end; ++step) {
    CopyAsyncWait<kStages - 2>();
    __syncthreads();  // this stage is filled, and everyone has left the one that is filled next
    if (step + kStages - 1 < end) {
      fill_weights(step + kStages - 1);
      fill_x(step + kStages - 1);
    }
    CopyAsyncCommit();
    if (step > begin && step % kStagesOfSlice == 0) close_slice(step / kStagesOfSlice - 1);
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
  close_slice((end - 1) / kStagesOfSlice);
  if constexpr (kSplit) {
    if (split == 0) StorePartial<T>(total, partials);
    if (!ArrivesLast(all.split.arrived + blockIdx.x, all.split.count)) return;
    SumPartials<T>(partials, all.split.PartialsOfTile(), total);
  }

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

template <class Weights, int kOutputs, int kRows, int kWarpsM, int kWarpsN, bool kSplit = false>
cudaError_t LaunchFor(const LinearGemmParams& params, cudaStream_t stream) {
  using T = Tiling<Weights, kOutputs, kRows, kWarpsM, kWarpsN>;
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(TilesOf(params.linear, kOutputs)),
                static_cast<unsigned>((params.linear.rows + kRows - 1) / kRows),
                static_cast<unsigned>(params.split.count)};
  shape.threads = T::kThreads;
  shape.shared_bytes = T::kSharedBytes;
  shape.overlaps = true;
  return Launch<LinearGemmKernel<Weights, kOutputs, kRows, kWarpsM, kWarpsN, kSplit>>(shape, stream,
                                                                                      params);
}

// Of the tile of few rows, which blocks may share.
constexpr int kSplitOutputs = 64;
constexpr int kSplitRows = 64;

template <class Weights>
cudaError_t LaunchForRows(const LinearGemmParams& params, cudaStream_t stream) {
  if (params.linear.rows <= kSplitRows) {
    return params.split.count == 1
               ? LaunchFor<Weights, kSplitOutputs, kSplitRows, 2, 2>(params, stream)
               : LaunchFor<Weights, kSplitOutputs, kSplitRows, 2, 2, true>(params, stream);
  }
  // Scaled groups take registers that the larger tile has not got.
  constexpr int kRows = Weights::kDType == DType::kInt8 ? 64 : 128;
  return LaunchFor<Weights, 128, kRows, 4, 2>(params, stream);
}

}  // namespace

LinearSplit SplitOf(const LinearParams& params, int32_t multiprocessors) {
  LinearSplit split;
  const int64_t tiles = TilesOf(params, kSplitOutputs);
  const int64_t slices = (params.x.rounded_stride + kSliceK - 1) / kSliceK;
  split.tiles = static_cast<int32_t>(tiles);
  split.slices = static_cast<int32_t>(slices);
  if (params.rows > kSplitRows || tiles == 0 || tiles >= multiprocessors) return split;
  const int64_t wanted = std::min(slices, (multiprocessors + tiles - 1) / tiles);
  split.slices_of_one = static_cast<int32_t>((slices + wanted - 1) / wanted);
  split.count = static_cast<int32_t>((slices + split.slices_of_one - 1) / split.slices_of_one);
  return split;
}

size_t LinearSplit::partial_bytes() const {
  return static_cast<size_t>(tiles) * static_cast<size_t>(PartialsOfTile()) * kSplitOutputs *
         kSplitRows * sizeof(float);
}

cudaError_t LinearGemm(const LinearGemmParams& params, cudaStream_t stream) {
  if (params.linear.rows == 0) return cudaSuccess;
  return WithWeights(params.linear.targets[0].weight.dtype, [&](auto weights) {
    return LaunchForRows<decltype(weights)>(params, stream);
  });
}

}  // namespace llama_steer::cuda
