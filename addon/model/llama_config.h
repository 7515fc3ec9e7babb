// The architecture in numbers: what config.json of a LlamaForCausalLM checkpoint says.
// Parsed and validated in TypeScript (src/model/checkpoint.ts), checked against the tensors here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "support/status.h"
#include "support/tensor_view.h"

namespace llama_steer {

/// The "llama3" rule of Llama 3.1: long wavelengths are slowed by `factor`.
struct Llama3RopeScaling {
  double factor = 8.0;
  double low_frequency_factor = 1.0;
  double high_frequency_factor = 4.0;
  double original_context_tokens = 8192.0;
};

struct LlamaConfig {
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t layers = 0;
  int32_t query_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_size = 0;
  int32_t vocab_size = 0;
  int32_t context_tokens = 0;
  float norm_epsilon = 1e-5f;
  double rope_theta = 10000.0;
  std::optional<Llama3RopeScaling> rope_scaling;
  double rope_linear_factor = 1.0;  // rope type "linear": positions are divided by this
  bool tied_embeddings = false;
  bool attention_bias = false;
  bool mlp_bias = false;
};

/// Refuses sizes that are not positive, overflow, or do not fit each other.
Status CheckLlamaConfig(const LlamaConfig& config);

/// One tensor of the checkpoint: where its bytes lie.
struct TensorLocation {
  std::string name;  // "model.layers.0.self_attn.q_proj.weight"
  DType dtype = DType::kBF16;
  std::vector<int64_t> shape;
  int32_t file = 0;           // index into CheckpointFiles::paths
  uint64_t offset_bytes = 0;  // from the start of the file
  uint64_t size_bytes = 0;
};

struct CheckpointFiles {
  std::vector<std::string> paths;
  std::vector<TensorLocation> tensors;
};

}  // namespace llama_steer
