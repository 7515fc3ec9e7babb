#include "model/lora_merge.h"

#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "support/float_types.h"

namespace llama_steer {
namespace {

float Load(const void* data, DType dtype, int64_t index) {
  if (dtype == DType::kF32) return static_cast<const float*>(data)[index];
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  return dtype == DType::kF16 ? FloatFromF16(bits) : FloatFromBf16(bits);
}

void Store(float value, DType dtype, int64_t index, void* data) {
  if (dtype == DType::kF32) {
    static_cast<float*>(data)[index] = value;
    return;
  }
  static_cast<uint16_t*>(data)[index] =
      dtype == DType::kF16 ? F16FromFloat(value) : Bf16FromFloat(value);
}

float Rounded(float value, DType dtype) {
  if (dtype == DType::kF16) return FloatFromF16(F16FromFloat(value));
  return dtype == DType::kBF16 ? FloatFromBf16(Bf16FromFloat(value)) : value;
}

std::vector<float> ToFloats(const TensorView& view) {
  std::vector<float> values(static_cast<size_t>(view.rows * view.cols));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = Load(view.data, view.dtype, static_cast<int64_t>(i));
  }
  return values;
}

}  // namespace

StatusOr<std::unique_ptr<uint8_t[]>> MergeLora(const TensorView& weight, const LoraFactors& lora,
                                               DType dtype, ThreadPool& pool) {
  const int64_t cols = weight.cols;
  const int64_t rank = lora.a.rows;
  const size_t bytes = static_cast<size_t>(weight.rows * cols) * DTypeBytes(dtype);
  std::unique_ptr<uint8_t[]> merged(new (std::nothrow) uint8_t[bytes]);
  if (merged == nullptr) {
    return Status::ResourceExhausted("no memory to merge an adapter into tensor " +
                                     std::string(weight.name));
  }
  const std::vector<float> a = ToFloats(lora.a);
  const std::vector<float> b = ToFloats(lora.b);
  std::vector<std::vector<float>> scratch(static_cast<size_t>(pool.threads()),
                                          std::vector<float>(static_cast<size_t>(cols)));
  pool.ParallelFor(weight.rows, [&](int64_t row, int32_t worker) {
    std::vector<float>& delta = scratch[static_cast<size_t>(worker)];
    delta.assign(static_cast<size_t>(cols), 0.0f);
    for (int64_t k = 0; k < rank; ++k) {
      const float factor = b[static_cast<size_t>(row * rank + k)];
      const float* a_row = a.data() + k * cols;
      for (int64_t i = 0; i < cols; ++i) delta[static_cast<size_t>(i)] += factor * a_row[i];
    }
    for (int64_t i = 0; i < cols; ++i) {
      const int64_t index = row * cols + i;
      const float before = Rounded(Load(weight.data, weight.dtype, index), dtype);
      Store(before + delta[static_cast<size_t>(i)] * lora.scale, dtype, index, merged.get());
    }
  });
  return merged;
}

}  // namespace llama_steer
