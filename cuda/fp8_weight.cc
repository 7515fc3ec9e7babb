#include "fp8_weight.h"

#include <cuda_fp8.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <string>

#include "backend/cpu/cpu_weight.h"

namespace llama_steer::cuda {
namespace {

constexpr float kLargestCode = 448.0f;

/// The scale of the row, NaN when a value is not finite.
float QuantiseRow(const std::vector<float>& values, uint8_t* codes) {
  float largest = 0.0f;
  for (const float value : values) {
    if (!std::isfinite(value)) return std::nanf("");
    largest = std::max(largest, std::fabs(value));
  }
  const float scale = largest / kLargestCode;
  for (size_t i = 0; i < values.size(); ++i) {
    const float code = scale == 0.0f ? 0.0f : values[i] / scale;
    codes[i] = __nv_cvt_float_to_fp8(code, __NV_SATFINITE, __NV_E4M3);
  }
  return scale;
}

}  // namespace

StatusOr<Fp8Matrix> QuantiseFp8(const TensorView& view, ThreadPool& pool) {
  const StatusOr<std::unique_ptr<Weight>> stored =
      cpu::MakeCpuWeight(view, WeightFormat::kAsStored, pool);
  if (!stored.ok()) return stored.status();
  const cpu::CpuWeight& weight = cpu::AsCpu(*stored.value());
  Fp8Matrix matrix;
  matrix.codes.resize(static_cast<size_t>(view.rows * view.cols));
  matrix.scales.resize(static_cast<size_t>(view.rows));
  std::atomic<bool> finite{true};
  pool.ParallelFor(view.rows, [&](int64_t row, int32_t) {
    std::vector<float> values(static_cast<size_t>(view.cols));
    for (int64_t i = 0; i < view.cols; ++i) {
      values[static_cast<size_t>(i)] = cpu::WeightAt(weight, row, i);
    }
    const float scale = QuantiseRow(values, matrix.codes.data() + row * view.cols);
    matrix.scales[static_cast<size_t>(row)] = scale;
    if (std::isnan(scale)) finite = false;
  });
  if (!finite) {
    return Status::InvalidArgument("tensor " + std::string(view.name) +
                                   " holds values that are not finite; fp8 cannot represent them");
  }
  return matrix;
}

}  // namespace llama_steer::cuda
