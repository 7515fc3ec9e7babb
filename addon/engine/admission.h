// What makes a request impossible, told before anything is done for it.
#pragma once

#include <cstdint>

#include "engine/engine.h"
#include "engine/request.h"

namespace llama_steer {

struct RequestLimits {
  int32_t layers = 0;
  int32_t vocab_size = 0;
  int32_t context_tokens = 0;
  int32_t kv_blocks = 0;
  int32_t kv_block_tokens = 0;
  int32_t max_completions = 0;
  int32_t max_steerings = 0;
  int32_t max_rows = 0;  // of a step
};

inline constexpr int32_t kMaxProbesPerRequest = 64;

/// kInvalidArgument with the numbers that do not fit. Vectors and captures are checked where they
/// are resolved.
Status CheckRequest(const EngineRequest& request, const RequestLimits& limits);

}  // namespace llama_steer
