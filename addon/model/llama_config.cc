#include "model/llama_config.h"

#include <cmath>

namespace llama_steer {
namespace {

/// So that rows * cols * bytes of any tensor fits 64 bits with room to spare.
constexpr int64_t kMaxWidth = int64_t{1} << 24;

bool IsPositive(double value) { return std::isfinite(value) && value > 0.0; }

Status CheckRope(const LlamaConfig& config) {
  if (!IsPositive(config.rope_theta) || !IsPositive(config.rope_linear_factor)) {
    return Status::InvalidArgument("rope theta and linear factor must be positive");
  }
  if (!config.rope_scaling) return Status::Ok();
  const Llama3RopeScaling& scaling = *config.rope_scaling;
  if (!IsPositive(scaling.factor) || !IsPositive(scaling.low_frequency_factor) ||
      !IsPositive(scaling.original_context_tokens) ||
      !(scaling.high_frequency_factor > scaling.low_frequency_factor)) {
    return Status::InvalidArgument(
        "rope scaling: factors must be positive, the high frequency factor above the low one");
  }
  return Status::Ok();
}

}  // namespace

Status CheckLlamaConfig(const LlamaConfig& config) {
  const struct {
    const char* name;
    int64_t value;
  } sizes[] = {
      {"hidden size", config.hidden_size},
      {"intermediate size", config.intermediate_size},
      {"number of layers", config.layers},
      {"number of query heads", config.query_heads},
      {"number of key/value heads", config.kv_heads},
      {"head size", config.head_size},
      {"vocabulary size", config.vocab_size},
      {"context", config.context_tokens},
      {"width of the query heads", int64_t{config.query_heads} * config.head_size},
  };
  for (const auto& size : sizes) {
    if (size.value < 1 || size.value > kMaxWidth) {
      return Status::InvalidArgument(std::string(size.name) + " is " + std::to_string(size.value) +
                                     ", must be within [1, " + std::to_string(kMaxWidth) + "]");
    }
  }
  if (config.query_heads % config.kv_heads != 0) {
    return Status::InvalidArgument(std::to_string(config.kv_heads) +
                                   " key/value heads do not divide " +
                                   std::to_string(config.query_heads) + " query heads");
  }
  if (!std::isfinite(config.norm_epsilon) || config.norm_epsilon < 0.0f) {
    return Status::InvalidArgument("the epsilon of the norms must be finite and not negative");
  }
  return CheckRope(config);
}

}  // namespace llama_steer
