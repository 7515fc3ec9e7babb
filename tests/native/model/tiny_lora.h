// A small random LoRA adapter on disk, with the tensor locations that TypeScript would give.
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
#include <utility>
#include <vector>

#include "model/lora.h"
#include "support/float_types.h"

namespace llama_steer::test {

struct TinyLoraShape {
  int64_t rank = 4;
  float scale = 1.0f;
  DType dtype = DType::kF32;
  std::vector<LoraModule> modules;
  uint32_t seed = 1;
};

inline const char* ModuleName(LoraModule module) {
  constexpr const char* kNames[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                    "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                    "mlp.down_proj"};
  return kNames[static_cast<size_t>(module)];
}

inline std::vector<LoraModule> EveryModule() {
  return {LoraModule::kQ,    LoraModule::kK,  LoraModule::kV,   LoraModule::kO,
          LoraModule::kGate, LoraModule::kUp, LoraModule::kDown};
}

class TinyLora {
 public:
  struct Factors {
    std::vector<float> a;  // [rank, inputs], as stored
    std::vector<float> b;  // [outputs, rank]
  };

  TinyLora(const LlamaConfig& config, const TinyLoraShape& shape)
      : shape_(shape), random_(shape.seed) {
    path_ = std::filesystem::path(testing::TempDir()) /
            ("lora-" + std::to_string(getpid()) + "-" +
             std::to_string(reinterpret_cast<uintptr_t>(this)) + ".bin");
    for (int32_t layer = 0; layer < config.layers; ++layer) {
      for (const LoraModule module : shape.modules) Add(config, layer, module);
    }
    files_.paths = {path_.string()};
    std::ofstream(path_, std::ios::binary) << bytes_;
  }
  ~TinyLora() { std::filesystem::remove(path_); }
  TinyLora(const TinyLora&) = delete;
  TinyLora& operator=(const TinyLora&) = delete;

  LoraFiles& files() { return files_; }
  const std::filesystem::path& path() const { return path_; }
  uint64_t size_bytes() const { return bytes_.size(); }
  float scale() const { return shape_.scale; }
  /// By the name of the projection, "model.layers.0.self_attn.q_proj".
  const std::map<std::string, Factors>& factors() const { return factors_; }

 private:
  void Add(const LlamaConfig& config, int32_t layer, LoraModule module) {
    const int64_t d = config.hidden_size;
    const int64_t wide = config.intermediate_size;
    const int64_t q = int64_t{config.query_heads} * config.head_size;
    const int64_t kv = int64_t{config.kv_heads} * config.head_size;
    const int64_t inputs[] = {d, d, d, q, d, d, wide};
    const int64_t outputs[] = {q, kv, kv, d, wide, wide, d};
    const std::string name = "model.layers." + std::to_string(layer) + "." + ModuleName(module);
    Factors& factors = factors_[name];
    LoraTarget target;
    target.layer = layer;
    target.module = module;
    target.rank = static_cast<int32_t>(shape_.rank);
    target.scale = shape_.scale;
    const auto index = static_cast<size_t>(module);
    target.a = Tensor(name + ".lora_A.weight", {shape_.rank, inputs[index]}, factors.a);
    target.b = Tensor(name + ".lora_B.weight", {outputs[index], shape_.rank}, factors.b);
    files_.targets.push_back(std::move(target));
  }

  TensorLocation Tensor(const std::string& name, const std::vector<int64_t>& shape,
                        std::vector<float>& values) {
    TensorLocation tensor;
    tensor.name = name;
    tensor.dtype = shape_.dtype;
    tensor.shape = shape;
    tensor.offset_bytes = bytes_.size();
    std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(shape[1])));
    for (int64_t i = 0; i < shape[0] * shape[1]; ++i) {
      const float value = normal(random_);
      const bool half = shape_.dtype == DType::kF16;
      const uint16_t bits = half ? F16FromFloat(value) : Bf16FromFloat(value);
      const float stored = half ? FloatFromF16(bits) : FloatFromBf16(bits);
      values.push_back(shape_.dtype == DType::kF32 ? value : stored);
      char raw[4];
      std::memcpy(raw, &value, 4);
      if (shape_.dtype != DType::kF32) std::memcpy(raw, &bits, 2);
      bytes_.append(raw, DTypeBytes(shape_.dtype));
    }
    tensor.size_bytes = bytes_.size() - tensor.offset_bytes;
    return tensor;
  }

  TinyLoraShape shape_;
  std::mt19937 random_;
  std::filesystem::path path_;
  std::string bytes_;
  LoraFiles files_;
  std::map<std::string, Factors> factors_;
};

}  // namespace llama_steer::test
