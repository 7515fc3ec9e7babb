// Frequencies of the rotary embedding.
#pragma once

#include <vector>

#include "model/llama_config.h"

namespace llama_steer {

/// `[head_size / 2]`: theta^(-2i/D), then the checkpoint's scaling, as transformers computes it.
std::vector<float> InverseFrequencies(const LlamaConfig& config);

}  // namespace llama_steer
