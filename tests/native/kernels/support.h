// What the kernel tests share: deterministic inputs, backends of every instruction set of the
// machine, and comparisons by bits and by relative error.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_weight.h"
#include "backend/cpu/isa.h"
#include "backend/loader.h"
#include "device.h"
#include "support/float_types.h"

namespace llama_steer::test {

/// Each test of this fixture runs once for each instruction set of the machine, or on CUDA.
class KernelTest : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Backend> Make(int32_t threads) const {
    StatusOr<std::unique_ptr<Backend>> backend = kOnCuda
                                                     ? CreateBackend(GetParam(), "auto", threads)
                                                     : CreateCpuBackend({threads, GetParam()});
    EXPECT_TRUE(backend.ok()) << backend.status().message();
    return std::move(backend).value();
  }
};

inline auto EveryTarget() {
  // A build for CUDA alone has no CPU backend to ask.
  if constexpr (kOnCuda) {
    return testing::ValuesIn(std::vector<std::string>{kDevice});
  } else {
    return testing::ValuesIn(cpu::AvailableIsas());
  }
}
inline std::string TargetOf(const testing::TestParamInfo<std::string>& info) { return info.param; }
#define INSTANTIATE_FOR_EVERY_TARGET(fixture) \
  INSTANTIATE_TEST_SUITE_P(On, fixture, test::EveryTarget(), test::TargetOf)

inline std::vector<float> RandomFloats(size_t count, uint32_t seed, float scale = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

/// Values that bf16 holds exactly: what tensor cores take without rounding.
inline std::vector<float> RandomBf16Floats(size_t count, uint32_t seed, float scale = 1.0f) {
  std::vector<float> values = RandomFloats(count, seed, scale);
  for (float& value : values) value = FloatFromBf16(Bf16FromFloat(value));
  return values;
}

inline Activations Upload(Backend& backend, const std::vector<float>& values, int64_t cols) {
  const int64_t rows = static_cast<int64_t>(values.size()) / cols;
  EXPECT_EQ(rows * cols, static_cast<int64_t>(values.size()));
  StatusOr<Activations> made = backend.AllocateActivations(rows, cols);
  EXPECT_TRUE(made.ok());
  EXPECT_TRUE(backend.Upload(values, *made).ok());
  return *made;
}

/// Filled with NaN: an element that a kernel forgets shows.
inline Activations Poisoned(Backend& backend, int64_t rows, int64_t cols) {
  return Upload(backend, std::vector<float>(static_cast<size_t>(rows * cols), std::nanf("")), cols);
}

inline std::vector<float> Downloaded(Backend& backend, Activations x, int64_t rows) {
  std::vector<float> values(static_cast<size_t>(rows * x.cols));
  EXPECT_TRUE(backend.Download(x, rows, values).ok());
  return values;
}

inline int32_t PutVector(Backend& backend, const std::vector<float>& values) {
  StatusOr<int32_t> row = backend.PutVectorRow(values);
  EXPECT_TRUE(row.ok());
  return row.ok() ? row.value() : -1;
}

inline bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// ‖a − exact‖ / ‖exact‖; infinite when either holds what is not finite.
inline double RelativeL2(std::span<const float> a, std::span<const double> exact) {
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - exact[i];
    error += difference * difference;
    norm += exact[i] * exact[i];
  }
  const double relative = std::sqrt(error / std::max(norm, 1e-300));
  return std::isfinite(relative) ? relative : std::numeric_limits<double>::infinity();
}

/// A weight whose bytes this object owns.
struct StoredTensor {
  std::vector<uint8_t> bytes;
  std::vector<float> exact;  // the values that are stored
  TensorView view;
  std::unique_ptr<Weight> weight;
};

inline StoredTensor Store(const std::vector<float>& values, int64_t cols, DType dtype) {
  StoredTensor tensor;
  tensor.bytes.resize(values.size() * DTypeBytes(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF32) {
      std::memcpy(tensor.bytes.data() + 4 * i, &values[i], 4);
      tensor.exact.push_back(values[i]);
    } else {
      const bool half = dtype == DType::kF16;
      const uint16_t bits = half ? F16FromFloat(values[i]) : Bf16FromFloat(values[i]);
      std::memcpy(tensor.bytes.data() + 2 * i, &bits, 2);
      tensor.exact.push_back(half ? FloatFromF16(bits) : FloatFromBf16(bits));
    }
  }
  const int64_t rows = static_cast<int64_t>(values.size()) / cols;
  tensor.view = {"test.weight", tensor.bytes.data(), dtype, rows, cols};
  return tensor;
}

/// What the codes and scales of int8 stand for.
inline std::vector<float> Int8Values(const TensorView& view) {
  ThreadPool pool(1);
  const auto made = cpu::MakeCpuWeight(view, WeightFormat::kInt8, pool);
  EXPECT_TRUE(made.ok());
  std::vector<float> values;
  for (int64_t i = 0; i < view.rows * view.cols; ++i) {
    values.push_back(cpu::WeightAt(cpu::AsCpu(*made.value()), i / view.cols, i % view.cols));
  }
  return values;
}

/// Every value of e4m3: three bits of mantissa, exponents of bias 7, no infinity; 0x7f is NaN.
inline std::vector<double> Fp8Codes() {
  std::vector<double> codes;
  for (int code = 0; code < 127; ++code) {
    const int exponent = code / 8;
    const double mantissa = code % 8 / 8.0;
    codes.push_back(exponent == 0 ? std::ldexp(mantissa, -6)
                                  : std::ldexp(1.0 + mantissa, exponent - 7));
  }
  return codes;
}

/// What the codes and scales of fp8 stand for: the nearest multiples, found by looking at all.
inline std::vector<float> Fp8Values(const std::vector<float>& stored, int64_t cols) {
  const std::vector<double> codes = Fp8Codes();
  std::vector<float> values;
  for (size_t first = 0; first < stored.size(); first += static_cast<size_t>(cols)) {
    const std::span row(stored.data() + first, static_cast<size_t>(cols));
    float largest = 0.0f;
    for (const float value : row) largest = std::max(largest, std::fabs(value));
    const float scale = largest / 448.0f;
    for (const float value : row) {
      const double wanted = scale == 0.0f ? 0.0 : std::fabs(value / scale);
      const auto nearest = std::ranges::min_element(
          codes, {}, [wanted](double code) { return std::fabs(code - wanted); });
      values.push_back(std::copysign(static_cast<float>(*nearest) * scale, value));
    }
  }
  return values;
}

inline StoredTensor Load(Backend& backend, const std::vector<float>& values, int64_t cols,
                         DType dtype, WeightFormat format = WeightFormat::kAsStored) {
  StoredTensor tensor = Store(values, cols, dtype);
  StatusOr<std::unique_ptr<Weight>> weight = backend.LoadWeight(tensor.view, format);
  EXPECT_TRUE(weight.ok()) << weight.status().message();
  if (weight.ok()) tensor.weight = std::move(weight).value();
  return tensor;
}

}  // namespace llama_steer::test
