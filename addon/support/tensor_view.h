// A read-only matrix or vector in host memory, usually inside a mapped checkpoint file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llama_steer {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  /// Groups of 32 values of a row share one scale; value = scale * int8. Only made by backends.
  kInt8,
  /// A row shares one float32 scale; value = scale * e4m3. Only made by backends.
  kFp8,
};

constexpr size_t DTypeBytes(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kInt8:
    case DType::kFp8:
      return 1;
  }
  return 0;
}

/// Row-major `[rows, cols]`; a vector has one row. Does not own its bytes; they outlive the view.
struct TensorView {
  std::string_view name;
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;

  size_t bytes() const {
    return static_cast<size_t>(rows) * static_cast<size_t>(cols) * DTypeBytes(dtype);
  }
};

}  // namespace llama_steer
