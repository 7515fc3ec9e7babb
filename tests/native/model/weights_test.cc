// What LoadLlamaWeights refuses, by name, and what it makes of the formats.
#include "model/weights.h"

#include <gtest/gtest.h>

#include <functional>

#include "model/llama.h"
#include "model/tiny_checkpoint.h"

namespace llama_steer {
namespace {

using test::TinyCheckpoint;
using test::TinyConfig;

std::unique_ptr<Backend> Cpu() {
  StatusOr<std::unique_ptr<Backend>> backend = CreateCpuBackend({1, "auto"});
  EXPECT_TRUE(backend.ok());
  return std::move(backend).value();
}

StatusOr<LlamaWeights> Load(const LlamaConfig& config, const CheckpointFiles& files,
                            WeightFormat format = WeightFormat::kAsStored,
                            const LoadProgress& progress = nullptr) {
  const std::unique_ptr<Backend> backend = Cpu();
  return LoadLlamaWeights(*backend, config, files, format, progress);
}

TEST(Weights, LoadsEveryTensorOfACheckpoint) {
  const LlamaConfig config = TinyConfig();
  TinyCheckpoint checkpoint(config);
  StatusOr<LlamaWeights> weights = Load(config, checkpoint.files());
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  EXPECT_EQ(weights->blocks.size(), 3u);
  EXPECT_EQ(weights->dtype_name, "bf16");
  ASSERT_NE(weights->head, nullptr);
  EXPECT_EQ(weights->head->rows, config.vocab_size);
  // Everything is read by a decode step but the embedding table.
  const uint64_t embedding = checkpoint.Tensor("model.embed_tokens.weight").size_bytes;
  EXPECT_EQ(weights->bytes, std::filesystem::file_size(checkpoint.path()) - embedding);
}

TEST(Weights, TellsProgressUpToTheLastByte) {
  const LlamaConfig config = TinyConfig();
  TinyCheckpoint checkpoint(config);
  uint64_t last = 0;
  uint64_t total = 0;
  const auto progress = [&](uint64_t done_bytes, uint64_t total_bytes) {
    EXPECT_GT(done_bytes, last);
    last = done_bytes;
    total = total_bytes;
    return true;
  };
  ASSERT_TRUE(Load(config, checkpoint.files(), WeightFormat::kAsStored, progress).ok());
  EXPECT_EQ(last, total);
  EXPECT_EQ(total, std::filesystem::file_size(checkpoint.path()));
}

TEST(Weights, StopLoadingWhenTold) {
  const LlamaConfig config = TinyConfig();
  TinyCheckpoint checkpoint(config);
  int calls = 0;
  const auto progress = [&](uint64_t, uint64_t) { return ++calls < 3; };
  const StatusOr<LlamaWeights> weights =
      Load(config, checkpoint.files(), WeightFormat::kAsStored, progress);
  EXPECT_EQ(weights.status().code(), StatusCode::kCancelled);
  EXPECT_EQ(calls, 3);
}

TEST(Weights, TiesTheHeadToTheEmbedding) {
  LlamaConfig config = TinyConfig();
  config.tied_embeddings = true;
  TinyCheckpoint checkpoint(config);
  StatusOr<LlamaWeights> weights = Load(config, checkpoint.files());
  ASSERT_TRUE(weights.ok());
  EXPECT_EQ(weights->head, nullptr);

  StatusOr<LlamaWeights> quantised = Load(config, checkpoint.files(), WeightFormat::kInt8);
  ASSERT_TRUE(quantised.ok());
  EXPECT_EQ(quantised->embedding->dtype, DType::kBF16);
  ASSERT_NE(quantised->head, nullptr);
  EXPECT_EQ(quantised->head->dtype, DType::kInt8);
}

TEST(Weights, AcceptsATiedHeadThatIsStoredAllTheSame) {
  LlamaConfig config = TinyConfig();
  TinyCheckpoint checkpoint(config);
  config.tied_embeddings = true;
  StatusOr<LlamaWeights> weights = Load(config, checkpoint.files());
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  EXPECT_EQ(weights->head, nullptr);
}

TEST(Weights, QuantisesProjectionsAndHeadOnly) {
  LlamaConfig config = TinyConfig();
  config.attention_bias = true;
  TinyCheckpoint checkpoint(config, DType::kF32);
  StatusOr<LlamaWeights> weights = Load(config, checkpoint.files(), WeightFormat::kInt8);
  ASSERT_TRUE(weights.ok());
  const LlamaBlockWeights& block = weights->blocks[1];
  EXPECT_EQ(block.q.weight->dtype, DType::kInt8);
  EXPECT_EQ(block.down.weight->dtype, DType::kInt8);
  EXPECT_EQ(weights->head->dtype, DType::kInt8);
  EXPECT_EQ(weights->embedding->dtype, DType::kF32);
  EXPECT_EQ(block.q.bias->dtype, DType::kF32);
  EXPECT_EQ(block.attention_norm->dtype, DType::kF32);
  EXPECT_EQ(weights->dtype_name, "int8");
}

TEST(Weights, IgnoresStoredRotaryFrequencies) {
  const LlamaConfig config = TinyConfig();
  TinyCheckpoint checkpoint(config);
  checkpoint.Add("model.layers.0.self_attn.rotary_emb.inv_freq", {8});
  checkpoint.Write();
  EXPECT_TRUE(Load(config, checkpoint.files()).ok());
}

struct Damage {
  const char* name;
  std::function<void(TinyCheckpoint&)> apply;
  const char* complaint;
};
void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }

const char* const kUp = "model.layers.1.mlp.up_proj.weight";

class DamagedWeights : public testing::TestWithParam<Damage> {};

TEST_P(DamagedWeights, AreRefusedByName) {
  const LlamaConfig config = TinyConfig();
  TinyCheckpoint checkpoint(config);
  GetParam().apply(checkpoint);
  const StatusOr<LlamaWeights> weights = Load(config, checkpoint.files());
  ASSERT_FALSE(weights.ok());
  EXPECT_EQ(weights.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(weights.status().message().find(GetParam().complaint), std::string::npos)
      << weights.status().message();
}

INSTANTIATE_TEST_SUITE_P(
    Each, DamagedWeights,
    testing::Values(
        Damage{"missing_file",
               [](TinyCheckpoint& c) { c.files().paths[0] = "/nowhere/model.safetensors"; },
               "/nowhere/model.safetensors: cannot be opened"},
        Damage{"folder", [](TinyCheckpoint& c) { c.files().paths[0] = "/"; }, "/: not a regular"},
        Damage{"missing_tensor", [](TinyCheckpoint& c) { c.Remove(kUp); },
               "tensor model.layers.1.mlp.up_proj.weight is missing"},
        Damage{"missing_head", [](TinyCheckpoint& c) { c.Remove("lm_head.weight"); },
               "tensor lm_head.weight is missing"},
        Damage{"unknown_tensor",
               [](TinyCheckpoint& c) {
                 c.Add("model.layers.3.mlp.up_proj.weight", {72, 48});
                 c.Write();
               },
               "tensor model.layers.3.mlp.up_proj.weight is not part of"},
        Damage{"unexpected_bias",
               [](TinyCheckpoint& c) {
                 c.Add("model.layers.0.self_attn.q_proj.bias", {64});
                 c.Write();
               },
               "tensor model.layers.0.self_attn.q_proj.bias is not part of"},
        Damage{"named_twice", [](TinyCheckpoint& c) { c.files().tensors.push_back(c.Tensor(kUp)); },
               "occurs twice"},
        Damage{"misshapen",
               [](TinyCheckpoint& c) {
                 c.Tensor(kUp).shape = {48, 72};
               },
               "has shape [48, 72], the configuration asks for [72, 48]"},
        Damage{"no_shape", [](TinyCheckpoint& c) { c.Tensor(kUp).shape = {}; }, "has shape []"},
        Damage{"wrong_size", [](TinyCheckpoint& c) { c.Tensor(kUp).size_bytes -= 2; },
               "bytes, not 6912"},
        Damage{"other_dtype", [](TinyCheckpoint& c) { c.Tensor(kUp).dtype = DType::kF32; },
               "bytes, not 13824"},
        Damage{"behind_the_end",
               [](TinyCheckpoint& c) { c.Tensor("lm_head.weight").offset_bytes += 2; },
               "tensor lm_head.weight ends at byte"},
        Damage{"offset_that_wraps",
               [](TinyCheckpoint& c) { c.Tensor(kUp).offset_bytes = UINT64_MAX - 1; }, kUp},
        Damage{"size_that_wraps",
               [](TinyCheckpoint& c) { c.Tensor(kUp).size_bytes = UINT64_MAX - 1; }, kUp},
        Damage{"unaligned", [](TinyCheckpoint& c) { c.Tensor(kUp).offset_bytes += 1; },
               "is not aligned"},
        Damage{"no_such_file", [](TinyCheckpoint& c) { c.Tensor(kUp).file = 1; },
               "names a file that is not there"},
        Damage{"negative_file", [](TinyCheckpoint& c) { c.Tensor(kUp).file = -1; },
               "names a file that is not there"},
        Damage{"truncated",
               [](TinyCheckpoint& c) { std::filesystem::resize_file(c.path(), 30000); },
               "of a file of 30000"},
        Damage{"empty", [](TinyCheckpoint& c) { std::filesystem::resize_file(c.path(), 0); },
               "not a regular file with content"}),
    [](const auto& example) { return std::string(example.param.name); });

TEST(LlamaConfigCheck, RefusesSizesThatCannotBe) {
  const std::function<void(LlamaConfig&)> breaks[] = {
      [](LlamaConfig& c) { c.layers = 0; },
      [](LlamaConfig& c) { c.hidden_size = -1; },
      [](LlamaConfig& c) { c.vocab_size = INT32_MAX; },
      [](LlamaConfig& c) { c.query_heads = 1 << 20; },
      [](LlamaConfig& c) { c.kv_heads = 3; },
      [](LlamaConfig& c) { c.norm_epsilon = std::nanf(""); },
      [](LlamaConfig& c) { c.rope_theta = 0.0; },
      [](LlamaConfig& c) { c.rope_linear_factor = -1.0; },
      [](LlamaConfig& c) {
        c.rope_scaling = {8.0, 4.0, 1.0, 8192.0};
      },
  };
  EXPECT_TRUE(CheckLlamaConfig(TinyConfig()).ok());
  const std::unique_ptr<Backend> backend = Cpu();
  for (const auto& apply : breaks) {
    LlamaConfig config = TinyConfig();
    TinyCheckpoint checkpoint(config);
    apply(config);
    EXPECT_FALSE(LlamaModel::Load(*backend, config, checkpoint.files(), WeightFormat::kAsStored, 16,
                                  16, nullptr)
                     .ok());
  }
}

}  // namespace
}  // namespace llama_steer
