#include "backend/cpu/cpu_weight.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <new>

#include "support/float_types.h"

namespace llama_steer::cpu {
namespace {

float LoadElement(const void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<const float*>(data)[index];
    case DType::kF16:
      return FloatFromF16(static_cast<const uint16_t*>(data)[index]);
    case DType::kBF16:
      return FloatFromBf16(static_cast<const uint16_t*>(data)[index]);
    case DType::kInt8:
    case DType::kFp8:
      break;
  }
  return 0.0f;
}

/// Symmetric: scale = max|w| / 127, rounded up to bf16, so that no code exceeds 127.
void QuantiseGroup(const float* values, int64_t count, int8_t* codes, uint16_t* scale_bits) {
  float largest = 0.0f;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(values[i]));
  const uint32_t exact = std::bit_cast<uint32_t>(largest / 127.0f);
  *scale_bits = static_cast<uint16_t>((exact + 0xffffu) >> 16);
  const float scale = FloatFromBf16(*scale_bits);
  for (int64_t i = 0; i < count; ++i) {
    const float code = scale == 0.0f ? 0.0f : std::nearbyint(values[i] / scale);
    codes[i] = static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f));
  }
}

Status QuantiseRows(const TensorView& view, CpuWeight& weight, ThreadPool& pool) {
  const int64_t groups = weight.groups_per_row();
  auto* codes = reinterpret_cast<int8_t*>(weight.owned_data.get());
  auto* scales = reinterpret_cast<uint16_t*>(weight.owned_scales.get());
  std::atomic<bool> finite{true};
  pool.ParallelFor(view.rows, [&](int64_t row, int32_t) {
    float values[kInt8GroupSize];
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t first = group * kInt8GroupSize;
      const int64_t count = std::min(kInt8GroupSize, view.cols - first);
      for (int64_t i = 0; i < count; ++i) {
        values[i] = LoadElement(view.data, view.dtype, row * view.cols + first + i);
        if (!std::isfinite(values[i])) finite = false;
      }
      if (!finite) return;
      QuantiseGroup(values, count, codes + row * view.cols + first, scales + row * groups + group);
    }
  });
  if (!finite) {
    return Status::InvalidArgument("tensor " + std::string(view.name) +
                                   " holds values that are not finite; int8 cannot represent them");
  }
  return Status::Ok();
}

Status NoMemory(const TensorView& view, WeightFormat format) {
  return Status::ResourceExhausted("no memory for tensor " + std::string(view.name) + " in " +
                                   (format == WeightFormat::kInt8 ? "int8" : "bf16"));
}

}  // namespace

StatusOr<std::unique_ptr<Weight>> MakeCpuWeight(const TensorView& view, WeightFormat format,
                                                ThreadPool& pool) {
  if (format == WeightFormat::kFp8) {
    return Status::InvalidArgument("the CPU backend has no fp8 weights");
  }
  auto weight = std::make_unique<CpuWeight>();
  weight->rows = view.rows;
  weight->cols = view.cols;
  weight->dtype = view.dtype;
  weight->data = view.data;
  const size_t count = static_cast<size_t>(view.rows) * static_cast<size_t>(view.cols);

  if (format == WeightFormat::kInt8) {
    weight->dtype = DType::kInt8;
    weight->owned_data = AllocateLargeBuffer(count);
    weight->owned_scales = AllocateLargeBuffer(
        static_cast<size_t>(view.rows * weight->groups_per_row()) * sizeof(*weight->scales));
    if (!weight->owned_data || !weight->owned_scales) return NoMemory(view, format);
    LLAMA_STEER_RETURN_IF_ERROR(QuantiseRows(view, *weight, pool));
    weight->data = weight->owned_data.get();
    weight->scales = reinterpret_cast<const uint16_t*>(weight->owned_scales.get());
  } else if (format == WeightFormat::kBF16 && view.dtype != DType::kBF16) {
    weight->dtype = DType::kBF16;
    weight->owned_data = AllocateLargeBuffer(count * 2);
    if (!weight->owned_data) return NoMemory(view, format);
    auto* rounded = reinterpret_cast<uint16_t*>(weight->owned_data.get());
    pool.ParallelFor(view.rows, [&](int64_t row, int32_t) {
      for (int64_t i = row * view.cols; i < (row + 1) * view.cols; ++i) {
        rounded[i] = Bf16FromFloat(LoadElement(view.data, view.dtype, i));
      }
    });
    weight->data = weight->owned_data.get();
  }
  return std::unique_ptr<Weight>(std::move(weight));
}

float WeightAt(const CpuWeight& weight, int64_t row, int64_t col) {
  const int64_t index = row * weight.cols + col;
  if (weight.dtype != DType::kInt8) return LoadElement(weight.data, weight.dtype, index);
  const int64_t group = row * weight.groups_per_row() + col / kInt8GroupSize;
  return FloatFromBf16(weight.scales[group]) *
         static_cast<float>(static_cast<const int8_t*>(weight.data)[index]);
}

}  // namespace llama_steer::cpu
