// Activations in device memory: float32, and a bf16 copy for the tensor cores that most kernels
// write along with it.
#pragma once

#include <memory>
#include <unordered_map>

#include "backend/backend.h"
#include "device_memory.h"
#include "kernels/tensors.h"

namespace llama_steer::cuda {

struct ActivationBuffer {
  DeviceBuffer values;
  DeviceBuffer rounded;
  int64_t rounded_stride = 0;
  int64_t rounded_rows = 0;  // leading rows whose bf16 copy is that of the values
};

class ActivationBuffers {
 public:
  StatusOr<Activations> Allocate(int64_t rows, int64_t cols, const Stream& stream);
  ActivationBuffer& of(const Activations& x) const { return *buffers_.at(x.data); }
  Matrix matrix(const Activations& x) const {
    const ActivationBuffer& buffer = of(x);
    return {static_cast<float*>(x.data), buffer.rounded.as<__nv_bfloat16>(), x.cols,
            buffer.rounded_stride};
  }

 private:
  std::unordered_map<const void*, std::unique_ptr<ActivationBuffer>> buffers_;  // by values
};

}  // namespace llama_steer::cuda
