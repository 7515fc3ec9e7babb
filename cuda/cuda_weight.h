// Weights in device memory.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "device_memory.h"
#include "kernels/tensors.h"
#include "support/thread_pool.h"

namespace llama_steer::cuda {

struct CudaWeight final : Weight {
  DeviceBuffer data;
  DeviceBuffer scales;
  int64_t stride = 0;  // values from row to row

  WeightView view() const {
    return {data.as<void>(), scales.as<__nv_bfloat16>(), dtype, rows, cols, stride};
  }
};

inline const CudaWeight& AsCuda(const Weight& weight) {
  return static_cast<const CudaWeight&>(weight);
}

/// Converts on the host as the CPU backend does (`pool`), then copies; done on return. bf16 and
/// int8 rows are padded with zeros.
StatusOr<std::unique_ptr<Weight>> MakeCudaWeight(const TensorView& view, WeightFormat format,
                                                 ThreadPool& pool, const Stream& stream);

}  // namespace llama_steer::cuda
