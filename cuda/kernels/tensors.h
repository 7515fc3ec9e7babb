// Matrices and weights as kernels see them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "device/device.h"
#include "support/tensor_view.h"

namespace llama_steer::cuda {

/// Columns of a bf16, int8 or fp8 row are padded with zeros to a multiple of this.
inline constexpr int64_t kPaddedColumns = 64;
constexpr int64_t PaddedColumns(int64_t cols) {
  return (cols + kPaddedColumns - 1) / kPaddedColumns * kPaddedColumns;
}

/// Activations `[rows, cols]`: float32, and the same values rounded to bf16 for the tensor cores.
struct Matrix {
  float* values = nullptr;           // [rows, cols]
  __nv_bfloat16* rounded = nullptr;  // [rows, rounded_stride], zeros beyond cols
  int64_t cols = 0;
  int64_t rounded_stride = 0;
};

/// int8 weights: groups of this many along a row share a scale.
inline constexpr int64_t kInt8GroupSize = 32;

/// A weight `[rows, cols]` in device memory.
struct WeightView {
  const void* data = nullptr;
  const __nv_bfloat16* scales = nullptr;  // [rows, stride / 32]; int8 only
  const float* row_scales = nullptr;      // [rows]; fp8 only
  DType dtype = DType::kBF16;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // values from row to row
};

#if defined(__CUDACC__) || defined(LLAMA_STEER_CUDA_EMULATED)
/// The exponent of e4m3 has bias 7, that of float32 and of bf16 has 127: bits that are moved to
/// their places stand for 2^-120 of the value, subnormal ones too.
__device__ __forceinline__ float Fp8ToFloat(uint8_t code) {
  const uint32_t bits = (code & 0x80u) << 24 | (code & 0x7fu) << 20;
  return __uint_as_float(bits) * 0x1p120f;
}

__device__ __forceinline__ float WeightAt(const WeightView& weight, int64_t row, int64_t col) {
  const int64_t index = row * weight.stride + col;
  switch (weight.dtype) {
    case DType::kF32:
      return static_cast<const float*>(weight.data)[index];
    case DType::kF16:
      return __half2float(static_cast<const __half*>(weight.data)[index]);
    case DType::kBF16:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(weight.data)[index]);
    case DType::kInt8:
      return __bfloat162float(weight.scales[index / kInt8GroupSize]) *
             static_cast<float>(static_cast<const int8_t*>(weight.data)[index]);
    case DType::kFp8:
      return weight.row_scales[row] * Fp8ToFloat(static_cast<const uint8_t*>(weight.data)[index]);
  }
  return 0.0f;
}

__device__ __forceinline__ float ToFloat(float value) { return value; }
__device__ __forceinline__ float ToFloat(__half value) { return __half2float(value); }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 value) { return __bfloat162float(value); }

/// Calls body(values) with a row of a weight that is not quantised, of the type it has: the type is
/// asked once, not at every value.
template <class Body>
__device__ __forceinline__ void WithRow(const WeightView& weight, int64_t row, const Body& body) {
  const int64_t first = row * weight.stride;
  switch (weight.dtype) {
    case DType::kF32:
      return body(static_cast<const float*>(weight.data) + first);
    case DType::kF16:
      return body(static_cast<const __half*>(weight.data) + first);
    case DType::kBF16:
      return body(static_cast<const __nv_bfloat16*>(weight.data) + first);
    case DType::kInt8:
    case DType::kFp8:
      return;  // norms and adapters never are
  }
}
#endif

}  // namespace llama_steer::cuda
