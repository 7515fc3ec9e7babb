// A LlamaForCausalLM with random weights in a temporary file, gone with the object.
#pragma once

#include <string>

#include "model/llama_config.h"

namespace llama_steer {

class TinyCheckpoint {
 public:
  /// `dtype`: kF32 or kBF16.
  TinyCheckpoint(const LlamaConfig& config, DType dtype, uint32_t seed);
  ~TinyCheckpoint();
  TinyCheckpoint(const TinyCheckpoint&) = delete;
  TinyCheckpoint& operator=(const TinyCheckpoint&) = delete;

  const LlamaConfig& config() const { return config_; }
  const CheckpointFiles& files() const { return files_; }

 private:
  void Add(const std::string& name, std::vector<int64_t> shape, float scale, float center);

  LlamaConfig config_;
  DType dtype_;
  uint32_t seed_;
  CheckpointFiles files_;
  std::string bytes_;
};

/// Four blocks, four query heads on two key/value heads.
LlamaConfig TinyConfig();

}  // namespace llama_steer
