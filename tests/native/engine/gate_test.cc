#include "engine/gate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

constexpr int32_t kPrompt = 5;
constexpr int64_t kHidden = 3;
const std::vector<float> kVector = {1.0f, -2.0f, 0.5f};

SteeringEntry Entry(const GateParams& gate) {
  SteeringEntry entry;
  entry.params = TestSteering(1, {0});
  entry.params.gate = gate;
  auto vector = std::make_shared<ResidentVector>(nullptr, Digest{});
  for (int32_t layer = 0; layer < kTestLayers; ++layer) {
    EXPECT_TRUE(vector->AddRow(layer, kVector).ok());
  }
  entry.gate_vector = vector;
  if (IsOnPrompt(gate)) entry.decision = GateDecision::kUndecided;
  return entry;
}

float ValueAt(int32_t position, size_t i) {
  return 0.25f * static_cast<float>(position + 1) - static_cast<float>(i);
}

/// The score of the mean of positions [begin, end).
double Score(GateMetric metric, int32_t begin, int32_t end) {
  double dot = 0.0;
  double squares = 0.0;
  double vector_squares = 0.0;
  for (size_t i = 0; i < kVector.size(); ++i) {
    double mean = 0.0;
    for (int32_t p = begin; p < end; ++p) mean += static_cast<double>(ValueAt(p, i));
    mean /= end - begin;
    dot += mean * static_cast<double>(kVector[i]);
    squares += mean * mean;
    vector_squares += static_cast<double>(kVector[i]) * static_cast<double>(kVector[i]);
  }
  return metric == GateMetric::kDot ? dot : dot / std::sqrt(squares * vector_squares);
}

/// Takes rows in steps of `chunk` tokens and decides.
Status Decided(std::vector<SteeringEntry>& entries, int32_t chunk,
               float (*value)(int32_t, size_t)) {
  std::optional<PromptGates> gates = PromptGates::Of(entries, kPrompt);
  EXPECT_TRUE(gates.has_value());
  while (!gates->todo().empty()) {
    const int32_t first = gates->todo().begin;
    const int32_t tokens = std::min(chunk, gates->todo().size());
    std::vector<float> staging;
    for (int32_t t = 0; t < tokens * gates->rows_per_token(); ++t) {
      for (size_t i = 0; i < kHidden; ++i) {
        staging.push_back(value(first + t / gates->rows_per_token(), i));
      }
    }
    gates->TakeRows(tokens, staging.data(), kHidden);
  }
  return gates->Decide(entries);
}

TEST(PromptGates, AreNoneWithoutAGateOnThePrompt) {
  EXPECT_FALSE(PromptGates::Of({}, kPrompt).has_value());
  const std::vector<SteeringEntry> entries = {Entry({.scope = GateScope::kEachToken})};
  EXPECT_FALSE(PromptGates::Of(entries, kPrompt).has_value());
}

TEST(PromptGates, ReadWhatTheirScopesNeed) {
  const auto todo = [](const GateParams& gate) {
    const std::vector<SteeringEntry> entries = {Entry(gate)};
    return PromptGates::Of(entries, kPrompt)->todo();
  };
  EXPECT_EQ(todo({.scope = GateScope::kPromptLastToken}), (PositionRange{4, 5}));
  EXPECT_EQ(todo({.scope = GateScope::kPromptMean}), (PositionRange{0, 5}));
  // A scored continuation is no part of the prompt.
  EXPECT_EQ(todo({.scope = GateScope::kPromptLastToken, .prompt_tokens = 3}),
            (PositionRange{2, 3}));
  EXPECT_EQ(todo({.scope = GateScope::kPromptMean, .prompt_tokens = 3}), (PositionRange{0, 3}));
}

TEST(PromptGates, OpenStrictlyBeyondTheThresholdHoweverThePromptIsCut) {
  for (const GateScope scope : {GateScope::kPromptLastToken, GateScope::kPromptMean}) {
    for (const GateMetric metric : {GateMetric::kDot, GateMetric::kCosine}) {
      const double score = Score(metric, scope == GateScope::kPromptMean ? 0 : 4, 5);
      for (const int32_t chunk : {1, 2, 5}) {
        for (const double offset : {-1e-3, 1e-3}) {
          GateParams gate{.layer = 2, .metric = metric, .scope = scope};
          gate.threshold = static_cast<float>(score + offset);
          std::vector<SteeringEntry> entries = {Entry(gate)};
          gate.comparator = GateComparator::kBelow;
          entries.push_back(Entry(gate));
          ASSERT_TRUE(Decided(entries, chunk, ValueAt).ok());
          EXPECT_EQ(entries[0].decision == GateDecision::kFired, offset < 0);
          EXPECT_EQ(entries[1].decision == GateDecision::kFired, offset > 0);
        }
      }
    }
  }
}

TEST(PromptGates, SeveralShareTheRowsOfABlock) {
  std::vector<SteeringEntry> entries = {
      Entry({.layer = 1, .scope = GateScope::kPromptMean}),
      Entry({.layer = 1, .scope = GateScope::kPromptLastToken}),
      Entry({.layer = 3, .scope = GateScope::kPromptMean, .prompt_tokens = 2})};
  const std::optional<PromptGates> gates = PromptGates::Of(entries, kPrompt);
  EXPECT_EQ(gates->rows_per_token(), 2);
  EXPECT_EQ(gates->todo(), (PositionRange{0, 5}));
  ASSERT_TRUE(Decided(entries, 2, ValueAt).ok());
  const auto fired = [](double score) {
    return score > 0.0 ? GateDecision::kFired : GateDecision::kNotFired;
  };
  EXPECT_EQ(entries[0].decision, fired(Score(GateMetric::kDot, 0, 5)));
  EXPECT_EQ(entries[1].decision, fired(Score(GateMetric::kDot, 4, 5)));
  EXPECT_EQ(entries[2].decision, fired(Score(GateMetric::kDot, 0, 2)));
}

TEST(PromptGates, FailClosedOnAScoreThatIsNotFinite) {
  std::vector<SteeringEntry> nan = {Entry({.scope = GateScope::kPromptMean})};
  const auto value = [](int32_t position, size_t i) {
    return position == 2 && i == 1 ? std::nanf("") : 1.0f;
  };
  EXPECT_EQ(Decided(nan, 5, value).code(), StatusCode::kInternal);
  EXPECT_EQ(nan[0].decision, GateDecision::kUndecided);
  std::vector<SteeringEntry> zero = {
      Entry({.metric = GateMetric::kCosine, .scope = GateScope::kPromptLastToken})};
  EXPECT_EQ(Decided(zero, 5, [](int32_t, size_t) { return 0.0f; }).code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace llama_steer
