// What this GPU does at most: bytes copied by a kernel, and operations of the tensor cores.
#pragma once

#include "device/device.h"

namespace llama_steer::cuda::bench {

/// to[i] = from[i]
struct CopyPeakParams {
  const uint4* from = nullptr;
  uint4* to = nullptr;
  int64_t count = 0;
};
cudaError_t CopyPeak(const CopyPeakParams& params, cudaStream_t stream);

/// mma.sync, the instruction of our kernels: operands in registers, nothing to wait for. On Hopper
/// dense products of wgmma go beyond it.
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
