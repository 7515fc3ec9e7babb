// A LlamaForCausalLM on a device: weights, activations, and the forward pass of one step.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/llama_config.h"
#include "model/lora.h"
#include "model/lora_terms.h"
#include "model/weights.h"
#include "support/status.h"

namespace llama_steer {

/// One step: T rows of any sequences. Null tables: nothing is steered, captured, probed.
struct LlamaStep {
  StepTables tables;
  std::span<const int32_t> logit_rows;  // rows of the step whose logits are wanted
  const SteerTables* steering = nullptr;
  const CaptureTables* capture = nullptr;
  std::span<const AdapterRows> adapters;  // rows under none are the base model's
  const ProbeTables* probes = nullptr;
};

class LlamaModel {
 public:
  /// Maps and checks the checkpoint, and adds `merged` to its weights when that is not null.
  /// `backend` must outlive the model.
  static StatusOr<std::unique_ptr<LlamaModel>> Load(Backend& backend, const LlamaConfig& config,
                                                    const CheckpointFiles& files,
                                                    WeightFormat format, int32_t max_batch_tokens,
                                                    int32_t max_logit_rows,
                                                    const LoadProgress& progress,
                                                    const MappedLora* merged = nullptr);

  const LlamaConfig& config() const { return config_; }
  uint64_t weight_bytes() const { return weights_.bytes; }
  /// Type of the projections on the device: "bf16", "f16", "f32", "int8", "fp8".
  const std::string& weight_dtype() const { return weights_.dtype_name; }

  /// Copies an adapter to the device; its number is used again after DropAdapter.
  StatusOr<int32_t> PutAdapter(const MappedLora& lora);
  void DropAdapter(int32_t adapter);

  /// Runs one step: writes the KV cache and leaves `[logit_rows, vocab]` in logits().
  Status Forward(const LlamaStep& step, KvCache& cache);
  /// Leaves `[rows, vocab]` in logits(): the unembedding of rows in host memory, `[d]` each; of
  /// their final norm when `normalise`. At most as many as a step has rows and logit rows.
  Status Unembed(std::span<const float* const> rows, bool normalise);
  Activations logits() const { return logits_; }

 private:
  LlamaModel(Backend& backend, const LlamaConfig& config, LlamaWeights weights);
  Status AllocateActivations(int32_t max_batch_tokens, int32_t max_logit_rows);
  Status Run(const LlamaStep& step, KvCache& cache);
  Status Attention(const LlamaStep& step, int32_t layer, KvCache& cache);
  Status Mlp(const LlamaStep& step, int32_t layer);
  Status Norm(const LlamaStep& step, int32_t block, Sublayer sublayer, const Weight& norm_weight);
  Status Logits(const LlamaStep& step);
  Status Head(Activations x, int64_t rows);
  Status AddLora(int32_t layer, LoraInput input, Activations x);

  uint64_t id_;
  Backend& backend_;
  LlamaConfig config_;
  LlamaWeights weights_;
  RopeTable rope_;
  std::vector<std::unique_ptr<LoraAdapter>> adapters_;  // null: free
  LoraTerms lora_;                                      // of the step
  std::vector<int32_t> unembed_positions_;              // zeros
  int64_t max_batch_tokens_ = 0;
  int64_t max_logit_rows_ = 0;

  Activations residual_;  // [T, d]
  Activations normed_;    // [T, d]
  Activations delta_;     // [T, d], what a sub-layer adds
  Activations q_;         // [T, Hq * D]
  Activations k_;         // [T, Hk * D]
  Activations v_;         // [T, Hk * D]
  Activations mixed_;     // [T, Hq * D], attention before o_proj
  Activations gate_;      // [T, intermediate]
  Activations up_;        // [T, intermediate]
  Activations gathered_;  // [logit_rows, d]
  Activations logits_;    // [logit_rows, V]
};

}  // namespace llama_steer
