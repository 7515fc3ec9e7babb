// The small row-wise ops: embedding lookup, SiLU · up, row gather.
#pragma once

#include "backend/backend.h"
#include "backend/cpu/cpu_weight.h"
#include "support/thread_pool.h"

namespace llama_steer::cpu {

/// residual[t, :] = table[token_ids[t], :]; ids were checked against the vocabulary by the engine.
void Embed(const CpuWeight& table, std::span<const int32_t> token_ids, float* residual,
           ThreadPool& pool);

/// gate = gate / (1 + exp(-gate)) * up over `count` values.
void SiluMul(float* gate, const float* up, int64_t count, ThreadPool& pool);

}  // namespace llama_steer::cpu
