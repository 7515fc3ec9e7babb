// Sums and maxima over a warp and over a block, each in one fixed order.
#pragma once

#include "device/device.h"

namespace llama_steer::cuda {

/// All lanes receive the same bits: floating-point addition commutes.
template <class T>
__device__ __forceinline__ T WarpSum(T value) {
  LLAMA_STEER_UNROLL
  for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kFullMask, value, offset);
  }
  return value;
}

/// NaN is passed over, as fmaxf does.
__device__ __forceinline__ float WarpMax(float value) {
  LLAMA_STEER_UNROLL
  for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kFullMask, value, offset));
  }
  return value;
}

/// Sums over all threads of a block, one barrier each: warps in rising order. `Storage` lies in
/// shared memory; two halves are used in turn, so that no second barrier is needed.
template <class T, int kValues>
class BlockSum {
 public:
  static constexpr int kMaxWarps = 32;
  struct Storage {
    T partial[2][kMaxWarps][kValues];
  };

  __device__ explicit BlockSum(Storage* storage) : storage_(storage) {}

  __device__ __forceinline__ void operator()(T (&values)[kValues]) {
    const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
    const int warps = static_cast<int>(blockDim.x) / kWarpThreads;
    T(&partial)[kMaxWarps][kValues] = storage_->partial[turn_];
    turn_ ^= 1;
    LLAMA_STEER_UNROLL
    for (int i = 0; i < kValues; ++i) values[i] = WarpSum(values[i]);
    if (threadIdx.x % kWarpThreads == 0) {
      LLAMA_STEER_UNROLL
      for (int i = 0; i < kValues; ++i) partial[warp][i] = values[i];
    }
    __syncthreads();
    LLAMA_STEER_UNROLL
    for (int i = 0; i < kValues; ++i) {
      T sum = partial[0][i];
      for (int w = 1; w < warps; ++w) sum += partial[w][i];
      values[i] = sum;
    }
  }

 private:
  Storage* storage_;
  int turn_ = 0;
};

}  // namespace llama_steer::cuda
