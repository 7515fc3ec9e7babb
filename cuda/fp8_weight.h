// Weights as e4m3 with a float32 scale a row.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "support/thread_pool.h"

namespace llama_steer::cuda {

/// Row-major `[rows, cols]`; value = scales[row] * e4m3.
struct Fp8Matrix {
  std::vector<uint8_t> codes;
  std::vector<float> scales;  // [rows]
};

/// scale = max|w| / 448, the largest e4m3; codes are rounded to nearest even. kInvalidArgument for
/// values that are not finite.
StatusOr<Fp8Matrix> QuantiseFp8(const TensorView& view, ThreadPool& pool);

}  // namespace llama_steer::cuda
