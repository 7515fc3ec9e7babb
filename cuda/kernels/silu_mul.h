#pragma once

#include "kernels/tensors.h"

namespace llama_steer::cuda {

/// gate[t, :] = silu(gate[t, :]) * up[t, :], in place; also rounded.
struct SiluMulParams {
  Matrix gate;
  const float* up = nullptr;
  int64_t rows = 0;
};
cudaError_t SiluMul(const SiluMulParams& params, cudaStream_t stream);

#if defined(__CUDACC__) || defined(LLAMA_STEER_CUDA_EMULATED)
__device__ __forceinline__ float SiluTimes(float gate, float up) {
  return gate / (1.0f + expf(-gate)) * up;
}
#endif

}  // namespace llama_steer::cuda
