// Projections: y = x · Wᵀ + b. One order of summation for every shape (ARCHITECTURE.md,
// Invariants): lane l of one accumulator an output takes the products k ≡ l in rising order; one
// tree adds the lanes. The kernels differ in register blocking only, so their bits agree.
#pragma once

#include <hwy/aligned_allocator.h>

#include <cstddef>
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

/// Memory whose vectors straddle no cache lines. Growing loses what it holds.
class FloatBuffer {
 public:
  float* AtLeast(size_t count) {
    if (count > size_) {
      data_ = hwy::AllocateAligned<float>(count);
      size_ = count;
    }
    return data_.get();
  }

 private:
  hwy::AlignedFreeUniquePtr<float[]> data_;
  size_t size_ = 0;
};

/// What one worker needs while it computes.
struct LinearScratch {
  FloatBuffer sums;    // accumulators of a task's outputs between two blocks of inputs
  FloatBuffer panel;   // a task's weights as float32
  FloatBuffer packed;  // x, for a task that comes without
};

/// Kept from call to call.
struct LinearBuffers {
  explicit LinearBuffers(int32_t threads) : workers(static_cast<size_t>(threads)) {}
  std::vector<LinearScratch> workers;
  FloatBuffer packed;  // x, for all workers
};

/// x is `[rows, cols]` float32; all jobs share x.
void Linear(const float* x, int64_t rows, int64_t cols, std::span<const LinearJob> jobs,
            LinearBuffers& buffers, ThreadPool& pool);

/// A part of a job that one worker does: outputs [first, last) of all rows.
struct LinearTask {
  const LinearJob* job = nullptr;
  const float* x = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t first = 0;
  int64_t last = 0;
  LinearScratch* scratch = nullptr;
  const float* packed = nullptr;       // x in the order of the kernels; null: the task packs it
  std::span<const uint8_t> next = {};  // weights to fetch meanwhile: what the worker reads next
};

/// How the kernels of this machine take x.
struct LinearPlan {
  int64_t strips = 0;  // of neighbouring rows
  int64_t packed_floats = 0;
};

/// Does one part, on the calling thread.
void RunLinearTask(const LinearTask& task);

}  // namespace llama_steer::cpu
