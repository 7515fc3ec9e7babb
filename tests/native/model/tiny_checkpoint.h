// A small random LlamaForCausalLM on disk, with the tensor locations that TypeScript would give.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "model/llama_config.h"
#include "support/float_types.h"

namespace llama_steer::test {

inline LlamaConfig TinyConfig() {
  LlamaConfig config;
  config.hidden_size = 48;
  config.intermediate_size = 72;
  config.layers = 3;
  config.query_heads = 4;
  config.kv_heads = 2;
  config.head_size = 16;
  config.vocab_size = 101;
  config.context_tokens = 256;
  return config;
}

/// Values by name, float32, and the same in a file as bf16, f16 or f32. Values are exact in bf16.
class TinyCheckpoint {
 public:
  explicit TinyCheckpoint(const LlamaConfig& config, DType dtype = DType::kBF16) : dtype_(dtype) {
    // Tests run as processes beside one another, and some of them at the same addresses.
    path_ = std::filesystem::path(testing::TempDir()) /
            ("tiny-" + std::to_string(getpid()) + "-" +
             std::to_string(reinterpret_cast<uintptr_t>(this)) + ".bin");
    const int64_t d = config.hidden_size;
    const int64_t wide = config.intermediate_size;
    const int64_t q = int64_t{config.query_heads} * config.head_size;
    const int64_t kv = int64_t{config.kv_heads} * config.head_size;
    Add("model.embed_tokens.weight", {config.vocab_size, d});
    for (int32_t layer = 0; layer < config.layers; ++layer) {
      const std::string at = "model.layers." + std::to_string(layer) + ".";
      Add(at + "input_layernorm.weight", {d});
      AddLinear(at + "self_attn.q_proj", q, d, config.attention_bias);
      AddLinear(at + "self_attn.k_proj", kv, d, config.attention_bias);
      AddLinear(at + "self_attn.v_proj", kv, d, config.attention_bias);
      AddLinear(at + "self_attn.o_proj", d, q, config.attention_bias);
      Add(at + "post_attention_layernorm.weight", {d});
      AddLinear(at + "mlp.gate_proj", wide, d, config.mlp_bias);
      AddLinear(at + "mlp.up_proj", wide, d, config.mlp_bias);
      AddLinear(at + "mlp.down_proj", d, wide, config.mlp_bias);
    }
    Add("model.norm.weight", {d});
    if (!config.tied_embeddings) Add("lm_head.weight", {config.vocab_size, d});
    Write();
  }
  ~TinyCheckpoint() { std::filesystem::remove(path_); }
  TinyCheckpoint(const TinyCheckpoint&) = delete;
  TinyCheckpoint& operator=(const TinyCheckpoint&) = delete;

  CheckpointFiles& files() { return files_; }
  const std::filesystem::path& path() const { return path_; }
  const std::vector<float>& Values(const std::string& name) const { return values_.at(name); }
  TensorLocation& Tensor(const std::string& name) {
    for (TensorLocation& tensor : files_.tensors) {
      if (tensor.name == name) return tensor;
    }
    ADD_FAILURE() << "no tensor " << name;
    return files_.tensors.front();
  }
  void Remove(const std::string& name) {
    std::erase_if(files_.tensors, [&](const auto& tensor) { return tensor.name == name; });
  }

  void Add(const std::string& name, const std::vector<int64_t>& shape) {
    size_t count = 1;
    for (const int64_t size : shape) count *= static_cast<size_t>(size);
    const float scale = shape.size() == 1 ? 0.25f : 1.0f / std::sqrt(static_cast<float>(shape[1]));
    std::normal_distribution<float> normal(name.ends_with("norm.weight") ? 1.0f : 0.0f, scale);
    std::vector<float>& values = values_[name];
    values.resize(count);
    for (float& value : values) value = FloatFromBf16(Bf16FromFloat(normal(random_)));

    TensorLocation tensor;
    tensor.name = name;
    tensor.dtype = dtype_;
    tensor.shape = shape;
    tensor.offset_bytes = bytes_.size();
    tensor.size_bytes = count * DTypeBytes(dtype_);
    files_.tensors.push_back(tensor);
    for (const float value : values) Append(value);
  }
  void Write() {
    files_.paths = {path_.string()};
    std::ofstream out(path_, std::ios::binary);
    out.write(bytes_.data(), static_cast<std::streamsize>(bytes_.size()));
  }

 private:
  void AddLinear(const std::string& name, int64_t outputs, int64_t inputs, bool bias) {
    Add(name + ".weight", {outputs, inputs});
    if (bias) Add(name + ".bias", {outputs});
  }
  void Append(float value) {
    char raw[4];
    const uint16_t half = dtype_ == DType::kBF16 ? Bf16FromFloat(value) : F16FromFloat(value);
    std::memcpy(raw, &value, 4);
    if (dtype_ != DType::kF32) std::memcpy(raw, &half, 2);
    bytes_.insert(bytes_.end(), raw, raw + DTypeBytes(dtype_));
  }

  DType dtype_;
  std::filesystem::path path_;
  std::mt19937 random_{1234};
  std::string bytes_;
  std::map<std::string, std::vector<float>> values_;
  CheckpointFiles files_;
};

}  // namespace llama_steer::test
