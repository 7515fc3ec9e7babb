// LoRA adapters in device memory, and their part of a step.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "device_memory.h"
#include "kernels/lora.h"
#include "uploads.h"

namespace llama_steer::cuda {

/// Done on return.
StatusOr<std::unique_ptr<LoraWeight>> MakeCudaLora(const TensorView& a, const TensorView& b,
                                                   float scale, const Stream& stream);

class LoraStep {
 public:
  LoraStep(Uploads& uploads, const Stream& stream) : uploads_(uploads), stream_(stream) {}
  /// `x`: [T, inputs].
  Status Add(const float* x, std::span<const LoraTerm> terms);

 private:
  Uploads& uploads_;
  const Stream& stream_;
  std::vector<DeviceLoraTerm> terms_;
  DeviceBuffer reduced_;
};

}  // namespace llama_steer::cuda
