// What the tensor cores do at most through mma.sync, the instruction of our kernels: operands in
// registers, nothing to wait for. On Hopper dense products of wgmma go beyond it.
#pragma once

#include "device/device.h"

namespace llama_steer::cuda::bench {

struct MmaPeakParams {
  const float* seed = nullptr;  // [32], what operands are made of
  float* sink = nullptr;        // [blocks * threads]
  int32_t rounds = 0;
  int32_t blocks = 0;
};
/// Multiply-adds count twice.
double MmaPeakFlop(const MmaPeakParams& params);
/// Values that `sink` must have room for.
int64_t MmaPeakSinkValues(const MmaPeakParams& params);
cudaError_t MmaPeak(const MmaPeakParams& params, cudaStream_t stream);

}  // namespace llama_steer::cuda::bench
