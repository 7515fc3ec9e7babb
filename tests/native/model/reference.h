// The Llama forward pass as plainly as it can be written, in float64, without a cache.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "model/rope.h"
#include "model/tiny_checkpoint.h"

namespace llama_steer::test {

using Row = std::vector<double>;

class Reference {
 public:
  Reference(const LlamaConfig& config, const TinyCheckpoint& checkpoint)
      : config_(config), checkpoint_(checkpoint) {}

  /// Called with the input and the output of each projection, to add to it what an adapter adds.
  std::function<void(const std::string& name, const std::vector<Row>& x, std::vector<Row>& y)>
      adapter;

  std::vector<Row> Logits(const std::vector<int32_t>& tokens) const {
    const std::vector<float>& embedding = checkpoint_.Values("model.embed_tokens.weight");
    const auto d = static_cast<size_t>(config_.hidden_size);
    std::vector<Row> residual;
    for (const int32_t token : tokens) {
      const float* row = embedding.data() + static_cast<size_t>(token) * d;
      residual.emplace_back(row, row + d);
    }
    for (int32_t layer = 0; layer < config_.layers; ++layer) {
      const std::string at = "model.layers." + std::to_string(layer) + ".";
      AddTo(residual, Attention(at, Norm(residual, at + "input_layernorm.weight")));
      AddTo(residual, Mlp(at, Norm(residual, at + "post_attention_layernorm.weight")));
    }
    const std::string head =
        config_.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    return Project(Norm(residual, "model.norm.weight"), checkpoint_.Values(head), nullptr);
  }

 private:
  static void AddTo(std::vector<Row>& rows, const std::vector<Row>& delta) {
    for (size_t t = 0; t < rows.size(); ++t) {
      for (size_t i = 0; i < rows[t].size(); ++i) rows[t][i] += delta[t][i];
    }
  }

  std::vector<Row> Norm(std::vector<Row> rows, const std::string& name) const {
    const std::vector<float>& weight = checkpoint_.Values(name);
    for (Row& row : rows) {
      double squares = 0.0;
      for (const double value : row) squares += value * value;
      const double scale =
          1.0 / std::sqrt(squares / static_cast<double>(row.size()) + config_.norm_epsilon);
      for (size_t i = 0; i < row.size(); ++i) row[i] *= scale * static_cast<double>(weight[i]);
    }
    return rows;
  }

  static std::vector<Row> Project(const std::vector<Row>& rows, const std::vector<float>& weight,
                                  const std::vector<float>* bias) {
    std::vector<Row> result;
    for (const Row& row : rows) {
      const size_t inputs = row.size();
      Row out(weight.size() / inputs);
      for (size_t o = 0; o < out.size(); ++o) {
        out[o] = bias == nullptr ? 0.0 : static_cast<double>((*bias)[o]);
        for (size_t i = 0; i < inputs; ++i) {
          out[o] += static_cast<double>(weight[o * inputs + i]) * row[i];
        }
      }
      result.push_back(std::move(out));
    }
    return result;
  }

  std::vector<Row> Linear(const std::string& name, bool bias, const std::vector<Row>& rows) const {
    std::vector<Row> y = Project(rows, checkpoint_.Values(name + ".weight"),
                                 bias ? &checkpoint_.Values(name + ".bias") : nullptr);
    if (adapter) adapter(name, rows, y);
    return y;
  }

  void Rotate(Row& row, size_t head, size_t position) const {
    const std::vector<float> frequencies = InverseFrequencies(config_);
    const size_t half = frequencies.size();
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * static_cast<double>(frequencies[i]);
      double& x = row[head * 2 * half + i];
      double& y = row[head * 2 * half + half + i];
      const double rotated = x * std::cos(angle) - y * std::sin(angle);
      y = y * std::cos(angle) + x * std::sin(angle);
      x = rotated;
    }
  }

  std::vector<Row> Attention(const std::string& at, const std::vector<Row>& x) const {
    const bool bias = config_.attention_bias;
    std::vector<Row> q = Linear(at + "self_attn.q_proj", bias, x);
    std::vector<Row> k = Linear(at + "self_attn.k_proj", bias, x);
    const std::vector<Row> v = Linear(at + "self_attn.v_proj", bias, x);
    const auto query_heads = static_cast<size_t>(config_.query_heads);
    const auto kv_heads = static_cast<size_t>(config_.kv_heads);
    const auto size = static_cast<size_t>(config_.head_size);
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t head = 0; head < query_heads; ++head) Rotate(q[t], head, t);
      for (size_t head = 0; head < kv_heads; ++head) Rotate(k[t], head, t);
    }
    std::vector<Row> mixed(x.size(), Row(query_heads * size, 0.0));
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t head = 0; head < query_heads; ++head) {
        const size_t kv = head / (query_heads / kv_heads) * size;
        Row weights(t + 1);
        double total = 0.0;
        for (size_t s = 0; s <= t; ++s) {
          double score = 0.0;
          for (size_t i = 0; i < size; ++i) score += q[t][head * size + i] * k[s][kv + i];
          weights[s] = std::exp(score / std::sqrt(static_cast<double>(size)));
          total += weights[s];
        }
        for (size_t s = 0; s <= t; ++s) {
          for (size_t i = 0; i < size; ++i) {
            mixed[t][head * size + i] += weights[s] / total * v[s][kv + i];
          }
        }
      }
    }
    return Linear(at + "self_attn.o_proj", bias, mixed);
  }

  std::vector<Row> Mlp(const std::string& at, const std::vector<Row>& x) const {
    const bool bias = config_.mlp_bias;
    std::vector<Row> gate = Linear(at + "mlp.gate_proj", bias, x);
    const std::vector<Row> up = Linear(at + "mlp.up_proj", bias, x);
    for (size_t t = 0; t < gate.size(); ++t) {
      for (size_t i = 0; i < gate[t].size(); ++i) {
        gate[t][i] *= up[t][i] / (1.0 + std::exp(-gate[t][i]));
      }
    }
    return Linear(at + "mlp.down_proj", bias, gate);
  }

  const LlamaConfig& config_;
  const TinyCheckpoint& checkpoint_;
};

inline std::vector<Row> ReferenceLogits(const LlamaConfig& config, const TinyCheckpoint& checkpoint,
                                        const std::vector<int32_t>& tokens) {
  return Reference(config, checkpoint).Logits(tokens);
}

/// Largest error, relative to the largest magnitude of the reference; NaN is infinitely wrong.
inline double RelativeError(const std::vector<float>& actual, const Row& reference) {
  double error = 0.0;
  double scale = 0.0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double difference = std::abs(static_cast<double>(actual[i]) - reference[i]);
    error = std::isnan(difference) ? INFINITY : std::max(error, difference);
    scale = std::max(scale, std::abs(reference[i]));
  }
  return error / scale;
}

}  // namespace llama_steer::test
