// Weights on the CPU: the mapped bytes of the checkpoint, or a converted copy.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "support/large_buffer.h"
#include "support/thread_pool.h"

namespace llama_steer::cpu {

inline constexpr int64_t kInt8GroupSize = 32;

/// Row-major `[rows, cols]`. int8: row r has ceil(cols / 32) bf16 scales, value = scale * int8.
struct CpuWeight final : Weight {
  const void* data = nullptr;
  const uint16_t* scales = nullptr;  // bf16; int8 only
  LargeBuffer owned_data;
  LargeBuffer owned_scales;

  int64_t groups_per_row() const { return (cols + kInt8GroupSize - 1) / kInt8GroupSize; }
};

StatusOr<std::unique_ptr<Weight>> MakeCpuWeight(const TensorView& view, WeightFormat format,
                                                ThreadPool& pool);

inline const CpuWeight& AsCpu(const Weight& weight) {
  return static_cast<const CpuWeight&>(weight);
}

/// Element [row, col] as float32.
float WeightAt(const CpuWeight& weight, int64_t row, int64_t col);

}  // namespace llama_steer::cpu
