// A LoRA adapter in the layout of PEFT: y += scale · B (A x) beside some of the projections.
// Parsed and validated in TypeScript (src/model/adapter.ts), checked against the model here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/llama_config.h"

namespace llama_steer {

/// The projections of a block that an adapter may change.
enum class LoraModule : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr int32_t kLoraModuleCount = 7;

/// One changed projection.
struct LoraTarget {
  int32_t layer = 0;
  LoraModule module = LoraModule::kQ;
  int32_t rank = 0;
  float scale = 1.0f;  // alpha / rank, or alpha / sqrt(rank)
  TensorLocation a;    // [rank, inputs]
  TensorLocation b;    // [outputs, rank]
};

struct LoraFiles {
  std::vector<std::string> paths;  // TensorLocation::file counts in these
  std::vector<LoraTarget> targets;
};

}  // namespace llama_steer
