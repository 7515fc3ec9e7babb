// How the tensor core kernels read operands. A chunk is 32 k of one row: lane 4g + c takes k =
// 8c .. 8c+7, 16 bytes of bf16 at once, and the two products of a chunk use its first and its last
// four values. The k of a chunk are thereby permuted, in both operands alike.
#pragma once

#include "device/ptx.h"
#include "kernels/linear.h"

namespace llama_steer::cuda {

inline constexpr int kChunkK = 32;
inline constexpr int kSliceK = 512;
inline constexpr int kChunksOfSlice = kSliceK / kChunkK;

/// The operand A of a chunk from rows g (low) and g + 8 (high).
__device__ __forceinline__ void ChunkA(const uint4& low, const uint4& high, FragmentA (&a)[2]) {
  a[0] = {{low.x, high.x, low.y, high.y}};
  a[1] = {{low.z, high.z, low.w, high.w}};
}
__device__ __forceinline__ void ChunkB(const uint4& row, FragmentB (&b)[2]) {
  b[0] = {{row.x, row.y}};
  b[1] = {{row.z, row.w}};
}

struct Bf16Weights {
  static constexpr DType kDType = DType::kBF16;
  static constexpr int kBytes = 2;
  using Raw = uint4;  // a lane's part of one row of a chunk
  struct Scales {};

  static __device__ __forceinline__ void Unpack(const Raw& low, const Raw& high,
                                                FragmentA (&a)[2]) {
    ChunkA(low, high, a);
  }
  static __device__ __forceinline__ Scales LoadScales(const WeightView&, int64_t, int64_t,
                                                      int64_t) {
    return {};
  }
  /// What a sum is multiplied with when it is stored.
  static __device__ __forceinline__ float RowScale(const WeightView&, int64_t) { return 1.0f; }
  /// acc += the products of one chunk.
  static __device__ __forceinline__ void Accumulate(FragmentD& acc, const FragmentA (&a)[2],
                                                    const FragmentB (&b)[2], const Scales&) {
    MmaBf16(acc, a[0], b[0]);
    MmaBf16(acc, a[1], b[1]);
  }
};

/// A chunk is one group: its exact integer products are scaled in float32.
struct Int8Weights {
  static constexpr DType kDType = DType::kInt8;
  static constexpr int kBytes = 1;
  using Raw = uint2;
  struct Scales {
    float low;
    float high;
  };
  static_assert(kChunkK == kInt8GroupSize);

  static __device__ __forceinline__ uint4 Widen(const Raw& codes) {
    const auto code = [](uint32_t word, int byte) {
      return static_cast<float>(static_cast<int8_t>(static_cast<uint8_t>(word >> (8 * byte))));
    };
    return {
        PackBf16(code(codes.x, 0), code(codes.x, 1)), PackBf16(code(codes.x, 2), code(codes.x, 3)),
        PackBf16(code(codes.y, 0), code(codes.y, 1)), PackBf16(code(codes.y, 2), code(codes.y, 3))};
  }
  static __device__ __forceinline__ void Unpack(const Raw& low, const Raw& high,
                                                FragmentA (&a)[2]) {
    ChunkA(Widen(low), Widen(high), a);
  }
  static __device__ __forceinline__ Scales LoadScales(const WeightView& weight, int64_t low_row,
                                                      int64_t high_row, int64_t chunk) {
    const int64_t groups = weight.stride / kInt8GroupSize;
    return {__bfloat162float(weight.scales[low_row * groups + chunk]),
            __bfloat162float(weight.scales[high_row * groups + chunk])};
  }
  static __device__ __forceinline__ float RowScale(const WeightView&, int64_t) { return 1.0f; }
  static __device__ __forceinline__ void Accumulate(FragmentD& acc, const FragmentA (&a)[2],
                                                    const FragmentB (&b)[2], const Scales& scales) {
    FragmentD sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
    MmaBf16(sum, a[0], b[0]);
    MmaBf16(sum, a[1], b[1]);
    acc.value[0] = fmaf(scales.low, sum.value[0], acc.value[0]);
    acc.value[1] = fmaf(scales.low, sum.value[1], acc.value[1]);
    acc.value[2] = fmaf(scales.high, sum.value[2], acc.value[2]);
    acc.value[3] = fmaf(scales.high, sum.value[3], acc.value[3]);
  }
};

/// bf16 holds every e4m3 value: the products are those of the codes, and a row is scaled at its
/// end.
struct Fp8Weights {
  static constexpr DType kDType = DType::kFp8;
  static constexpr int kBytes = 1;
  using Raw = uint2;
  using Scales = Bf16Weights::Scales;

  /// Codes 0 and 1 of the lower half of `word`; see Fp8ToFloat.
  static __device__ __forceinline__ Bf16Pair Widen(uint32_t word) {
    const uint32_t codes = (word & 0xffu) << 8 | (word & 0xff00u) << 16;
    return MultiplyBf16((codes & 0x80008000u) | (codes >> 4 & 0x07f007f0u), kTwoTo120);
  }
  static __device__ __forceinline__ uint4 Widen(const Raw& codes) {
    return {Widen(codes.x), Widen(codes.x >> 16), Widen(codes.y), Widen(codes.y >> 16)};
  }
  static __device__ __forceinline__ void Unpack(const Raw& low, const Raw& high,
                                                FragmentA (&a)[2]) {
    ChunkA(Widen(low), Widen(high), a);
  }
  static __device__ __forceinline__ Scales LoadScales(const WeightView&, int64_t, int64_t,
                                                      int64_t) {
    return {};
  }
  static __device__ __forceinline__ float RowScale(const WeightView& weight, int64_t row) {
    return weight.row_scales[row];
  }
  static __device__ __forceinline__ void Accumulate(FragmentD& acc, const FragmentA (&a)[2],
                                                    const FragmentB (&b)[2], const Scales& scales) {
    Bf16Weights::Accumulate(acc, a, b, scales);
  }

 private:
  static constexpr Bf16Pair kTwoTo120 = 0x7b807b80u;
};

/// Calls launch(Weights{}) for the weights of a type that the tensor cores take.
template <class Launcher>
cudaError_t WithWeights(DType dtype, const Launcher& launch) {
  switch (dtype) {
    case DType::kBF16:
      return launch(Bf16Weights{});
    case DType::kInt8:
      return launch(Int8Weights{});
    case DType::kFp8:
      return launch(Fp8Weights{});
    case DType::kF32:
    case DType::kF16:
      break;
  }
  return cudaErrorInvalidValue;
}

__host__ __device__ __forceinline__ int64_t TilesOf(const LinearTargetView& target,
                                                    int64_t tile_outputs) {
  return (target.weight.rows + tile_outputs - 1) / tile_outputs;
}

/// Of all targets.
inline int64_t TilesOf(const LinearParams& params, int64_t tile_outputs) {
  int64_t tiles = 0;
  for (int i = 0; i < params.target_count; ++i) tiles += TilesOf(params.targets[i], tile_outputs);
  return tiles;
}

/// The target that a tile of outputs belongs to, tiles numbered through all targets.
__device__ __forceinline__ int TargetOfTile(const LinearParams& params, int tile_outputs,
                                            int64_t& tile) {
  int target = 0;
  for (; target + 1 < params.target_count; ++target) {
    const int64_t tiles = TilesOf(params.targets[target], tile_outputs);
    if (tile < tiles) break;
    tile -= tiles;
  }
  return target;
}

/// An output from the sum of its products.
template <class Weights>
__device__ __forceinline__ float OutputValue(const LinearTargetView& target, int64_t output,
                                             float sum) {
  sum *= Weights::RowScale(target.weight, output);
  return target.bias.data == nullptr ? sum : sum + WeightAt(target.bias, 0, output);
}

template <class Weights>
__device__ __forceinline__ void StoreOutput(const LinearTargetView& target, int64_t row,
                                            int64_t output, float sum) {
  target.output[row * target.weight.rows + output] = OutputValue<Weights>(target, output, sum);
}

}  // namespace llama_steer::cuda
