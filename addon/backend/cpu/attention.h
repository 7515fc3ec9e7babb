// Fused causal attention over pages: online softmax in page order, no score matrix. A query's
// arithmetic depends on its own position and pages only; pages past it are skipped.
#pragma once

#include "backend/backend.h"
#include "backend/cpu/kv_layout.h"
#include "support/thread_pool.h"

namespace llama_steer::cpu {

/// Rows (token, query head) of one tile share the loads of a page.
inline constexpr int32_t kTileRows = 8;

/// One tile: rows [first_row, first_row + row_count) of (token, head of the group), token-major.
struct AttentionTile {
  const CpuKvCache* cache = nullptr;
  const int32_t* block_table = nullptr;  // of the sequence
  int32_t layer = 0;
  int32_t kv_head = 0;
  int32_t head_size = 0;
  int32_t row_count = 0;
  float scale = 0.0f;
  const float* query[kTileRows] = {};  // [head_size]
  float* output[kTileRows] = {};       // [head_size]
  int32_t position[kTileRows] = {};
};

void Attention(const StepTables& step, int32_t layer, const float* q, int32_t query_heads,
               const CpuKvCache& cache, float* output, ThreadPool& pool);

}  // namespace llama_steer::cpu
