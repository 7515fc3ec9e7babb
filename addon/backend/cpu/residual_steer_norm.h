// The fused kernel of the project: residual add, steering, capture and RMSNorm in one pass over a
// row, all in float32. An unsteered row takes the same arithmetic whatever else is in the step.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_weight.h"
#include "support/thread_pool.h"

namespace llama_steer::cpu {

/// A vector on the device, with what its operations need of it.
struct VectorRow {
  std::vector<float> values;  // [d]
  float norm = 0.0f;          // ‖v‖
};

/// What one worker needs for its rows.
struct NormTask {
  const ResidualSteerNorm* args = nullptr;
  const StepTables* step = nullptr;
  const std::vector<VectorRow>* vectors = nullptr;
  int64_t first_row = 0;
  int64_t last_row = 0;
  std::vector<float>* scratch = nullptr;  // the row before a norm-preserving operation
};

void ApplyResidualSteerNorm(const ResidualSteerNorm& args, const StepTables& step,
                            const std::vector<VectorRow>& vectors, ThreadPool& pool);

/// ‖v‖ in the order of summation of the kernel.
float VectorNorm(const float* v, int64_t size);

}  // namespace llama_steer::cpu
