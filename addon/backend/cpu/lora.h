// LoRA: y += scale · B (A x). A x is a projection like any other (linear.h), with its order of
// summation. B is kept transposed: a vector of outputs takes u_0, u_1, … in rising order, so that
// any rank fills the lanes and no lanes are summed.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_weight.h"
#include "backend/cpu/linear.h"
#include "support/thread_pool.h"

namespace llama_steer::cpu {

/// Outputs are padded to whole pairs of the widest vectors.
inline constexpr int64_t kLoraOutputAlign = 32;

struct CpuLoraWeight final : LoraWeight {
  CpuWeight a;  // [rank, inputs]
  CpuWeight b;  // [rank, outputs padded with zeros]: transposed
};

StatusOr<std::unique_ptr<LoraWeight>> MakeCpuLoraWeight(const TensorView& a, const TensorView& b,
                                                        float scale);

/// Reused from step to step.
struct LoraScratch {
  std::vector<LinearJob> jobs;        // A x of each term
  std::vector<LinearTask> shrinks;    // parts of the jobs
  std::vector<float> reduced;         // A x of all terms, each [row_count, rank]
  std::vector<LinearScratch> linear;  // one a worker
};

/// `x` is `[T, cols]`.
void AddLora(const float* x, int64_t cols, std::span<const LoraTerm> terms, LoraScratch& scratch,
             ThreadPool& pool);

/// Outputs [first, last) of all rows of a term; `first` is a multiple of kLoraOutputAlign.
struct LoraExpandTask {
  const LoraTerm* term = nullptr;
  const float* reduced = nullptr;  // [row_count, rank]
  int64_t first = 0;
  int64_t last = 0;
};

}  // namespace llama_steer::cpu
