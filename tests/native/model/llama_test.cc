// The forward pass against a plain float64 implementation, and the promise that a row's arithmetic
// depends on that row alone.
#include "model/llama.h"

#include <gtest/gtest.h>

#include <numeric>

#include "device.h"
#include "model/reference.h"
#include "model/runner.h"
#include "model/tiny_checkpoint.h"

namespace llama_steer {
namespace {

using test::Prompt;
using test::Runner;
using test::TinyCheckpoint;

/// On CUDA with heads that the tensor cores take.
LlamaConfig TinyConfig() {
  LlamaConfig config = test::TinyConfig();
  if (test::kOnCuda) config.head_size = 32;
  return config;
}

struct Shape {
  const char* name;
  DType dtype;
  int32_t kv_heads;
  bool tied;
  bool biases;
  bool scaled_rope;
};
void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

class LlamaShapes : public testing::TestWithParam<Shape> {};

TEST_P(LlamaShapes, AgreeWithAFloat64Implementation) {
  const Shape& shape = GetParam();
  LlamaConfig config = TinyConfig();
  config.kv_heads = shape.kv_heads;
  config.tied_embeddings = shape.tied;
  config.attention_bias = config.mlp_bias = shape.biases;
  if (shape.scaled_rope) config.rope_scaling = {4.0, 1.0, 4.0, 32.0};
  TinyCheckpoint checkpoint(config, shape.dtype);
  Runner runner(config, checkpoint);
  const std::vector<int32_t> prompt = Prompt(37, 5, config.vocab_size);
  const auto logits = runner.Step({{0, 0, prompt}});
  const auto reference = test::ReferenceLogits(config, checkpoint, prompt);
  ASSERT_EQ(logits.size(), reference.size());
  // Tensor cores round what they multiply to bf16, eight bits.
  const double tolerance = test::kOnCuda && shape.dtype == DType::kBF16 ? 2e-2 : 1e-5;
  for (size_t row = 0; row < logits.size(); ++row) {
    EXPECT_LT(test::RelativeError(logits[row], reference[row]), tolerance) << "row " << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Each, LlamaShapes,
                         testing::Values(Shape{"bf16", DType::kBF16, 2, false, false, false},
                                         Shape{"f16_tied", DType::kF16, 4, true, false, false},
                                         Shape{"f32_biases", DType::kF32, 1, false, true, false},
                                         Shape{"scaled_rope", DType::kBF16, 1, true, true, true}),
                         [](const auto& example) { return std::string(example.param.name); });

class LlamaInvariants : public testing::TestWithParam<DType> {
 protected:
  const LlamaConfig config_ = TinyConfig();
  TinyCheckpoint checkpoint_{config_};
};
INSTANTIATE_TEST_SUITE_P(Kv, LlamaInvariants, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& example) {
                           return std::string(example.param == DType::kF32 ? "f32" : "bf16");
                         });

TEST_P(LlamaInvariants, APromptCutAnywhereGivesTheSameBits) {
  const std::vector<int32_t> prompt = Prompt(41, 9, config_.vocab_size);
  Runner whole(config_, checkpoint_, GetParam());
  const auto expected = whole.Step({{0, 0, prompt}});
  for (const size_t cut : {size_t{1}, size_t{7}, size_t{16}, size_t{31}}) {
    Runner cut_up(config_, checkpoint_, GetParam());
    std::vector<std::vector<float>> logits;
    for (size_t begin = 0; begin < prompt.size(); begin += cut) {
      const auto from = prompt.begin() + static_cast<std::ptrdiff_t>(begin);
      const auto to =
          prompt.begin() + static_cast<std::ptrdiff_t>(std::min(begin + cut, prompt.size()));
      for (auto& row : cut_up.Step({{0, static_cast<int32_t>(begin), {from, to}}})) {
        logits.push_back(std::move(row));
      }
    }
    EXPECT_EQ(logits, expected) << "cut every " << cut;
  }
}

TEST_P(LlamaInvariants, ABatchGivesEachSequenceTheBitsItGetsAlone) {
  const std::vector<int32_t> first = Prompt(19, 1, config_.vocab_size);
  const std::vector<int32_t> second = Prompt(1, 2, config_.vocab_size);
  Runner together(config_, checkpoint_, GetParam(), 2);
  const auto both = together.Step({{0, 0, first}, {1, 0, second}});
  Runner alone(config_, checkpoint_, GetParam(), 1);
  auto expected = alone.Step({{0, 0, first}});
  expected.push_back(alone.Step({{1, 0, second}})[0]);
  EXPECT_EQ(both, expected);
}

/// Slot 1 of `tables` steers with one op in every layer.
struct OneOp {
  explicit OneOp(const LlamaConfig& config, std::vector<int32_t> slots, SteerOp steer_op)
      : row_slot(std::move(slots)), ops{steer_op}, proof(row_slot.size()) {
    for (int32_t layer = 0; layer < config.layers; ++layer) {
      ranges.push_back({0, 0});
      ranges.push_back({0, 1});
    }
    tables = {row_slot, ranges, 2, ops, proof.data(), 1};
  }
  std::vector<int32_t> row_slot;
  std::vector<SteerOp> ops;
  std::vector<SteerOpRange> ranges;
  std::vector<SteerProof> proof;
  SteerTables tables;
};

SteerOp AddOp(int32_t vector_row, float coefficient) {
  SteerOp op;
  op.inert = coefficient == 0.0f;
  op.vector_row = vector_row;
  op.coefficient = coefficient;
  op.position_end = 1000;
  return op;
}

TEST_P(LlamaInvariants, AnUnsteeredRowBesideASteeredOneKeepsItsBits) {
  const std::vector<int32_t> prompt = Prompt(6, 3, config_.vocab_size);
  Runner plain(config_, checkpoint_, GetParam());
  const auto expected = plain.Step({{0, 0, prompt}});

  Runner runner(config_, checkpoint_, GetParam());
  const std::vector<float> vector(static_cast<size_t>(config_.hidden_size), 0.5f);
  const int32_t vector_row = std::move(runner.backend().PutVectorRow(vector)).value();
  OneOp steering(config_, {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1}, AddOp(vector_row, 1.0f));
  const auto logits = runner.Step({{0, 0, prompt}, {1, 0, prompt}}, &steering.tables);
  for (size_t row = 0; row < prompt.size(); ++row) {
    EXPECT_EQ(logits[row], expected[row]);
    EXPECT_NE(logits[row + prompt.size()], expected[row]);
    EXPECT_EQ(steering.proof[row].layers_acted, 0u);
    EXPECT_EQ(steering.proof[row + prompt.size()].layers_acted, 3u);
    EXPECT_GT(steering.proof[row + prompt.size()].delta_ratio_sum, 0.0f);
  }
}

TEST_P(LlamaInvariants, CoefficientZeroIsNoSteering) {
  const std::vector<int32_t> prompt = Prompt(6, 4, config_.vocab_size);
  Runner plain(config_, checkpoint_, GetParam());
  const auto expected = plain.Step({{0, 0, prompt}});
  Runner runner(config_, checkpoint_, GetParam());
  const std::vector<float> vector(static_cast<size_t>(config_.hidden_size), 0.5f);
  const int32_t vector_row = std::move(runner.backend().PutVectorRow(vector)).value();
  OneOp steering(config_, std::vector<int32_t>(6, 1), AddOp(vector_row, 0.0f));
  EXPECT_EQ(runner.Step({{0, 0, prompt}}, &steering.tables), expected);
}

TEST(Llama, GivesLogitsOfTheRowsAskedFor) {
  const LlamaConfig config = TinyConfig();
  TinyCheckpoint checkpoint(config);
  Runner runner(config, checkpoint);
  const std::vector<int32_t> prompt = Prompt(5, 8, config.vocab_size);
  const auto all = runner.Step({{0, 0, prompt}});

  const std::vector<int32_t> positions = {0, 1, 2, 3, 4};
  const std::vector<SequenceSpan> spans = {{0, 5, 0, 0}};
  const std::vector<int32_t> table = {8};
  const std::vector<int32_t> rows = {4, 1};
  LlamaStep step;
  step.tables = {prompt, positions, spans, table};
  step.logit_rows = rows;
  ASSERT_TRUE(runner.model().Forward(step, runner.cache()).ok());
  std::vector<float> logits(2 * static_cast<size_t>(config.vocab_size));
  ASSERT_TRUE(runner.backend().Download(runner.model().logits(), 2, logits).ok());
  EXPECT_TRUE(std::equal(all[4].begin(), all[4].end(), logits.begin()));
  EXPECT_TRUE(std::equal(all[1].begin(), all[1].end(), logits.begin() + config.vocab_size));
}

TEST(Llama, RefusesAStepLargerThanItsBuffers) {
  const LlamaConfig config = TinyConfig();
  TinyCheckpoint checkpoint(config);
  Runner runner(config, checkpoint);
  const std::vector<int32_t> tokens(129, 1);
  LlamaStep step;
  step.tables = {tokens, tokens, {}, {}};
  EXPECT_EQ(runner.model().Forward(step, runner.cache()).code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace llama_steer
