// Projections: y = x · Wᵀ + b. One order of summation for every shape (ARCHITECTURE.md,
// Invariants): lane l of one accumulator an output takes the products k ≡ l in rising order; one
// tree adds the lanes. The kernels differ in register blocking only, so their bits agree.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/cpu/cpu_weight.h"
#include "support/thread_pool.h"

namespace llama_steer::cpu {

struct LinearJob {
  const CpuWeight* weight = nullptr;
  const CpuWeight* bias = nullptr;  // or null
  float* output = nullptr;          // [rows, weight->rows]
};

/// x is `[rows, cols]` float32; all jobs share x.
void Linear(const float* x, int64_t rows, int64_t cols, std::span<const LinearJob> jobs,
            ThreadPool& pool);

/// A part of a job that one worker does: outputs [first, last) of all rows.
struct LinearTask {
  const LinearJob* job = nullptr;
  const float* x = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t first = 0;
  int64_t last = 0;
  std::vector<float>* panel = nullptr;  // scratch of the worker
};

/// Does one part, on the calling thread.
void RunLinearTask(const LinearTask& task);

}  // namespace llama_steer::cpu
