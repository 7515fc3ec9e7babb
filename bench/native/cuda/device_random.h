// Random values in device memory, made there. Never zeros: a GPU that multiplies zeros draws less
// power and clocks higher than it would at work.
#pragma once

#include "device/device.h"

namespace llama_steer::cuda::bench {

enum class FillKind : uint8_t {
  kF32,    // uniform in [offset - scale, offset + scale)
  kBf16,   // likewise
  kBytes,  // int8 or e4m3 codes: uniform, without the codes of e4m3 that are NaN
};

struct FillParams {
  void* data = nullptr;
  int64_t count = 0;  // values
  FillKind kind = FillKind::kF32;
  float scale = 1.0f;
  float offset = 0.0f;
  uint32_t seed = 0;
};
cudaError_t FillRandom(const FillParams& params, cudaStream_t stream);

}  // namespace llama_steer::cuda::bench
