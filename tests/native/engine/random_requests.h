// Requests of every kind, the same ones for the same seed.
#pragma once

#include <cstdint>
#include <random>

#include "engine/request.h"
#include "model/llama_config.h"

namespace llama_steer {

struct RandomRequestLimits {
  int32_t max_prompt_tokens = 70;
  uint32_t max_new_tokens = 24;
  uint32_t max_completions = 4;
  bool captures = true;
  bool compare = true;  // with unsteered shadows: takes two rows a step
  /// Asks for nothing that the host has to know a token for, and ends at one of many tokens.
  bool plain = false;
};

/// Prompts share beginnings, so that the prefix cache has work; vectors are the harness's.
EngineRequest RandomRequest(RequestId id, const LlamaConfig& config,
                            const RandomRequestLimits& limits, std::mt19937& random);

}  // namespace llama_steer
