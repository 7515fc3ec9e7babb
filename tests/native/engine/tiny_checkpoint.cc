#include "engine/tiny_checkpoint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <utility>

#include "engine/fake_model.h"
#include "support/float_types.h"

namespace llama_steer {

LlamaConfig TinyConfig() {
  LlamaConfig config;
  config.hidden_size = 48;
  config.intermediate_size = 80;
  config.layers = 4;
  config.query_heads = 4;
  config.kv_heads = 2;
  config.head_size = 16;
  config.vocab_size = 131;
  config.context_tokens = 512;
  return config;
}

TinyCheckpoint::TinyCheckpoint(const LlamaConfig& config, DType dtype, uint32_t seed)
    : config_(config), dtype_(dtype), seed_(seed) {
  const int64_t d = config.hidden_size;
  const int64_t wide = config.intermediate_size;
  const int64_t q_width = int64_t{config.query_heads} * config.head_size;
  const int64_t kv_width = int64_t{config.kv_heads} * config.head_size;
  const auto scale_of = [](int64_t inputs) { return 2.0f / std::sqrt(static_cast<float>(inputs)); };
  Add("model.embed_tokens.weight", {config.vocab_size, d}, 1.0f, 0.0f);
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    Add(prefix + "input_layernorm.weight", {d}, 0.2f, 1.0f);
    Add(prefix + "self_attn.q_proj.weight", {q_width, d}, scale_of(d), 0.0f);
    Add(prefix + "self_attn.k_proj.weight", {kv_width, d}, scale_of(d), 0.0f);
    Add(prefix + "self_attn.v_proj.weight", {kv_width, d}, scale_of(d), 0.0f);
    Add(prefix + "self_attn.o_proj.weight", {d, q_width}, scale_of(q_width), 0.0f);
    Add(prefix + "post_attention_layernorm.weight", {d}, 0.2f, 1.0f);
    Add(prefix + "mlp.gate_proj.weight", {wide, d}, scale_of(d), 0.0f);
    Add(prefix + "mlp.up_proj.weight", {wide, d}, scale_of(d), 0.0f);
    Add(prefix + "mlp.down_proj.weight", {d, wide}, scale_of(wide), 0.0f);
  }
  Add("model.norm.weight", {d}, 0.2f, 1.0f);
  Add("lm_head.weight", {config.vocab_size, d}, scale_of(d), 0.0f);

  static int32_t made = 0;
  files_.paths = {testing::TempDir() + "tiny_checkpoint_" + std::to_string(getpid()) + "_" +
                  std::to_string(made++) + ".bin"};
  std::ofstream(files_.paths[0], std::ios::binary) << bytes_;
  bytes_ = {};
}

TinyCheckpoint::~TinyCheckpoint() { std::remove(files_.paths[0].c_str()); }

void TinyCheckpoint::Add(const std::string& name, std::vector<int64_t> shape, float scale,
                         float center) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  TensorLocation tensor;
  tensor.name = name;
  tensor.dtype = dtype_;
  tensor.shape = std::move(shape);
  tensor.offset_bytes = bytes_.size();
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t h = Mix(Mix(seed_, files_.tensors.size()), static_cast<uint64_t>(i));
    const float unit = static_cast<float>(h >> 40) * 0x1p-23f - 1.0f;  // [-1, 1)
    const float value = center + scale * unit;
    if (dtype_ == DType::kF32) {
      bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    } else {
      const uint16_t bits = Bf16FromFloat(value);
      bytes_.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
    }
  }
  tensor.size_bytes = bytes_.size() - tensor.offset_bytes;
  files_.tensors.push_back(std::move(tensor));
}

}  // namespace llama_steer
