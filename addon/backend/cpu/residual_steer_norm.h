// The fused kernel of the project: residual add, gates, steering, capture, probes and RMSNorm in
// one pass over a row, all in float32. An unsteered row takes the same arithmetic whatever else is
// in the step.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_weight.h"
#include "support/thread_pool.h"

namespace llama_steer::cpu {

/// A vector on the device, with what its operations need of it.
struct VectorRow {
  std::vector<float> values;     // v [d]
  std::vector<float> direction;  // v̂ = v / ‖v‖ [d]; zeros when v is zero
  float norm = 0.0f;             // ‖v‖
};

/// Length and direction are computed in float64: they hold for vectors of any size.
VectorRow MakeVectorRow(std::span<const float> values);

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

}  // namespace llama_steer::cpu
