// Steps of a tiny model, given as parts of sequences.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "backend/loader.h"
#include "device.h"
#include "model/llama.h"
#include "model/tiny_checkpoint.h"

namespace llama_steer::test {

inline constexpr int32_t kBlockTokens = 16;
inline constexpr int32_t kMaxBlocks = 16;
inline constexpr int32_t kBlocksOfASequence = 8;

/// A model with a cache in which sequence s owns blocks [8 s, 8 s + 8).
class Runner {
 public:
  Runner(const LlamaConfig& config, TinyCheckpoint& checkpoint, DType kv_dtype = DType::kF32,
         int32_t threads = 2, WeightFormat format = WeightFormat::kAsStored,
         const MappedLora* merged = nullptr) {
    backend_ = std::move(CreateBackend(kDevice, "auto", threads)).value();
    StatusOr<std::unique_ptr<LlamaModel>> model =
        LlamaModel::Load(*backend_, config, checkpoint.files(), format, 128, 128, nullptr, merged);
    EXPECT_TRUE(model.ok()) << model.status().message();
    model_ = std::move(model).value();
    KvCacheShape shape;
    shape.layers = config.layers;
    shape.blocks = kMaxBlocks;
    shape.block_tokens = kBlockTokens;
    shape.kv_heads = config.kv_heads;
    shape.head_size = config.head_size;
    shape.dtype = kv_dtype;
    cache_ = std::move(backend_->AllocateKvCache(shape)).value();
    vocab_ = config.vocab_size;
  }

  struct Part {
    int32_t sequence = 0;
    int32_t first_position = 0;
    std::vector<int32_t> tokens;
  };

  /// Logits of every row of the step, [rows][V].
  std::vector<std::vector<float>> Step(const std::vector<Part>& parts,
                                       const SteerTables* steering = nullptr,
                                       std::span<const AdapterRows> adapters = {}) {
    std::vector<int32_t> tokens;
    std::vector<int32_t> positions;
    std::vector<SequenceSpan> spans;
    std::vector<int32_t> table;
    for (const Part& part : parts) {
      const auto count = static_cast<int32_t>(part.tokens.size());
      spans.push_back({static_cast<int32_t>(tokens.size()), count, part.first_position,
                       static_cast<int32_t>(table.size())});
      for (int32_t block = 0; block < kBlocksOfASequence; ++block) {
        table.push_back(part.sequence * kBlocksOfASequence + block);
      }
      for (int32_t i = 0; i < count; ++i) positions.push_back(part.first_position + i);
      tokens.insert(tokens.end(), part.tokens.begin(), part.tokens.end());
    }
    std::vector<int32_t> rows(tokens.size());
    std::iota(rows.begin(), rows.end(), 0);
    LlamaStep step;
    step.tables = {tokens, positions, spans, table};
    step.logit_rows = rows;
    step.steering = steering;
    step.adapters = adapters;
    const Status status = model_->Forward(step, *cache_);
    EXPECT_TRUE(status.ok()) << status.message();
    std::vector<float> flat(tokens.size() * static_cast<size_t>(vocab_));
    EXPECT_TRUE(backend_->Download(model_->logits(), static_cast<int64_t>(rows.size()), flat).ok());
    EXPECT_TRUE(backend_->Sync().ok());  // the tables end here
    std::vector<std::vector<float>> logits;
    for (size_t row = 0; row < rows.size(); ++row) {
      const auto begin = flat.begin() + static_cast<std::ptrdiff_t>(row) * vocab_;
      logits.emplace_back(begin, begin + vocab_);
    }
    return logits;
  }

  Backend& backend() { return *backend_; }
  LlamaModel& model() { return *model_; }
  KvCache& cache() { return *cache_; }

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LlamaModel> model_;
  std::unique_ptr<KvCache> cache_;
  int32_t vocab_ = 0;
};

inline std::vector<int32_t> Prompt(int32_t count, uint32_t seed, int32_t vocab) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens)
    token = static_cast<int32_t>(random() % static_cast<uint32_t>(vocab));
  return tokens;
}

}  // namespace llama_steer::test
