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
  DeviceBuffer scales;  // int8: bf16 [rows, stride / 32]; fp8: float32 [rows]
  int64_t stride = 0;   // values from row to row

  WeightView view() const {
    const bool fp8 = dtype == DType::kFp8;
    return {data.as<void>(),
            fp8 ? nullptr : scales.as<__nv_bfloat16>(),
            fp8 ? scales.as<float>() : nullptr,
            dtype,
            rows,
            cols,
            stride};
  }
};

inline const CudaWeight& AsCuda(const Weight& weight) {
  return static_cast<const CudaWeight&>(weight);
}

/// Converts on the host (`pool`), but for fp8 as the CPU backend does, then copies; done on return.
/// bf16, int8 and fp8 rows are padded with zeros.
StatusOr<std::unique_ptr<Weight>> MakeCudaWeight(const TensorView& view, WeightFormat format,
                                                 ThreadPool& pool, const Stream& stream);

}  // namespace llama_steer::cuda
