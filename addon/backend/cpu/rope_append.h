// Rotary embedding of queries and keys, and the write of keys and values into their pages.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "backend/cpu/kv_layout.h"
#include "support/thread_pool.h"

namespace llama_steer::cpu {

/// cos and sin of every (position, pair) asked for so far; grows with the context in use.
class RopeCache {
 public:
  /// `[head_size / 2]` cosines, then as many sines.
  const float* Row(int32_t position) const {
    return values_.data() + static_cast<size_t>(position) * 2 * pairs_;
  }
  void Cover(const RopeTable& rope, int32_t last_position);

 private:
  std::vector<float> inverse_frequencies_;
  size_t pairs_ = 0;
  std::vector<float> values_;
};

void RopeAppendKv(const RopeCache& rope, const StepTables& step, int32_t layer, float* q, float* k,
                  const float* v, int32_t query_heads, CpuKvCache& cache, ThreadPool& pool);

}  // namespace llama_steer::cpu
