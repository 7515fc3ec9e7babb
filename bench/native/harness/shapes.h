// Shapes of public Llama models, as in bench/checkpoint/shapes.mjs.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "model/llama_config.h"

namespace llama_steer::bench {

inline constexpr const char* kShapeNames = "tiny, small, tinyllama, llama-3.2-1b, llama-3.1-8b";

inline std::optional<LlamaConfig> ShapeByName(std::string_view name) {
  LlamaConfig config;
  config.norm_epsilon = 1e-5f;
  config.rope_theta = 500000.0;
  const auto set = [&config](int32_t hidden, int32_t intermediate, int32_t layers, int32_t heads,
                             int32_t kv_heads, int32_t head_size, int32_t vocab, int32_t context,
                             bool tied) {
    config.hidden_size = hidden;
    config.intermediate_size = intermediate;
    config.layers = layers;
    config.query_heads = heads;
    config.kv_heads = kv_heads;
    config.head_size = head_size;
    config.vocab_size = vocab;
    config.context_tokens = context;
    config.tied_embeddings = tied;
  };
  if (name == "tiny") {
    set(64, 160, 3, 4, 2, 32, 1024, 1024, true);
  } else if (name == "small") {
    set(512, 1408, 4, 8, 2, 64, 8192, 4096, true);
  } else if (name == "tinyllama") {
    set(2048, 5632, 22, 32, 4, 64, 32000, 2048, false);
  } else if (name == "llama-3.2-1b") {
    set(2048, 8192, 16, 32, 8, 64, 128256, 131072, true);
    config.rope_scaling = Llama3RopeScaling{.factor = 32.0};
  } else if (name == "llama-3.1-8b") {
    set(4096, 14336, 32, 32, 8, 128, 128256, 131072, false);
    config.rope_scaling = Llama3RopeScaling{.factor = 8.0};
  } else {
    return std::nullopt;
  }
  return config;
}

}  // namespace llama_steer::bench
