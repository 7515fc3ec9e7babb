// The tensors of a LlamaForCausalLM checkpoint, checked against its configuration and put on the
// device.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/llama_config.h"
#include "model/lora.h"
#include "model/mapped_file.h"
#include "support/status.h"

namespace llama_steer {

/// Called after each tensor. False: stop; loading ends with kCancelled.
using LoadProgress = std::function<bool(uint64_t done_bytes, uint64_t total_bytes)>;

struct LinearWeights {
  std::unique_ptr<Weight> weight;  // [outputs, inputs]
  std::unique_ptr<Weight> bias;    // [1, outputs] or null
};

struct LlamaBlockWeights {
  std::unique_ptr<Weight> attention_norm;  // [1, d]
  LinearWeights q, k, v, o;
  std::unique_ptr<Weight> mlp_norm;  // [1, d]
  LinearWeights gate, up, down;
};

struct LlamaWeights {
  std::vector<MappedFile> files;                   // outlive the weights that point into them
  std::vector<std::unique_ptr<uint8_t[]>> merged;  // as do these: projections with an adapter added
  std::unique_ptr<Weight> embedding;               // [V, d], always as stored
  std::vector<LlamaBlockWeights> blocks;
  std::unique_ptr<Weight> final_norm;  // [1, d]
  std::unique_ptr<Weight> head;        // [V, d]; null: the embedding serves
  uint64_t bytes = 0;                  // read by one decode step
  std::string dtype_name;
};

/// Refuses missing, unknown, misshapen and out-of-file tensors by name. `merged`: added to the
/// projections, or null.
StatusOr<LlamaWeights> LoadLlamaWeights(Backend& backend, const LlamaConfig& config,
                                        const CheckpointFiles& files, WeightFormat format,
                                        const LoadProgress& progress,
                                        const MappedLora* merged = nullptr);

}  // namespace llama_steer
