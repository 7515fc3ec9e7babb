// compare_unsteered: shadows in lock-step with their sequences.
#include <gtest/gtest.h>

#include <map>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

const EngineOptions kOptions = TestOptions();

EngineRequest Comparing(RequestId id, int32_t prompt, uint32_t new_tokens,
                        std::vector<SteeringParams> steering) {
  EngineRequest request = SteeredRequest(id, prompt, new_tokens, std::move(steering));
  request.compare_unsteered = true;
  return request;
}

/// Runs a request and counts the rows that it takes.
struct Counted {
  RequestRecord record;
  int64_t rows = 0;
};
Counted RowsOf(const EngineRequest& request, int32_t chunk = 64) {
  EngineOptions options = kOptions;
  options.max_batch_tokens = chunk;
  CoreHarness harness(options, 64);
  Counted counted;
  harness.fake().on_forward = [&](const ForwardStep& step) {
    counted.rows += static_cast<int64_t>(step.tables.token_ids.size());
    return Status::Ok();
  };
  counted.record = harness.Run(request);
  harness.ExpectIdle();
  EXPECT_EQ(Difference(counted.record, RunAlone(request)), "");
  return counted;
}

TEST(CoreCompare, EveryTokenIsComparedAndNothingElseChanges) {
  const EngineRequest request = Comparing(1, 20, 6, {TestSteering(1, {1})});
  RequestRecord record = RunAlone(request);
  for (const std::optional<double>& kl : record.kl.at(0)) {
    ASSERT_TRUE(kl.has_value());
    EXPECT_GT(*kl, 0.0);
  }
  EngineRequest plain = request;
  plain.compare_unsteered = false;
  const RequestRecord other = RunAlone(plain);
  EXPECT_FALSE(other.kl.at(0)[0].has_value());
  record.kl = other.kl;
  EXPECT_EQ(Difference(record, other), "");
  EXPECT_EQ(record.done->completion_tokens, 6u);
  EXPECT_EQ(record.done->prompt_tokens, 20u);
}

TEST(CoreCompare, TheReferenceIsTheUnsteeredModelOnTheSameTokens) {
  const EngineRequest request = Comparing(1, 20, 6, {TestSteering(1, {1})});
  const RequestRecord record = RunAlone(request);
  // The unsteered logits of the k-th token are those after the same prompt and k tokens: their
  // hash makes the KL of the fake model.
  for (size_t k = 0; k < 6; ++k) {
    EngineRequest steered = Comparing(1, 20, 1, {TestSteering(1, {1})});
    for (size_t i = 0; i < k; ++i) {
      steered.prompt_token_ids.push_back(record.tokens.at(0)[i].token_id);
    }
    EXPECT_EQ(RunAlone(steered).kl.at(0)[0], record.kl.at(0)[k]) << k;
  }
}

TEST(CoreCompare, WithoutSteeringItIsExactlyZeroAndTakesNoRow) {
  SteeringParams inert = TestSteering(1, {1});
  inert.coefficient = 0.0f;
  SteeringParams held = TestSteering(1, {1});
  held.gate = GateParams{.vector = 2, .threshold = 1e30f, .scope = GateScope::kPromptLastToken};
  SteeringParams unseen = TestSteering(1, {1});
  unseen.after_text = Bytes("nowhere");
  for (const std::vector<SteeringParams>& steering :
       std::vector<std::vector<SteeringParams>>{{}, {inert}, {held}, {unseen}}) {
    const Counted counted = RowsOf(Comparing(1, 20, 6, steering));
    EXPECT_EQ(counted.rows, 25);
    EXPECT_EQ(counted.record.kl.at(0), std::vector<std::optional<double>>(6, 0.0));
  }
}

TEST(CoreCompare, ClosedGatesOnEveryTokenMakeItExactlyZero) {
  SteeringParams closed = TestSteering(1, {1});
  closed.gate = GateParams{.vector = 2, .threshold = 1e30f};
  const Counted counted = RowsOf(Comparing(1, 20, 6, {closed}));
  EXPECT_EQ(counted.record.kl.at(0), std::vector<std::optional<double>>(6, 0.0));
}

TEST(CoreCompare, BlocksBeforeTheFirstSteeredTokenAreShared) {
  // Only generated tokens are steered: the first one is drawn from unsteered logits.
  const Counted generated = RowsOf(Comparing(1, 40, 5, {TestSteering(1, {1}, 40)}));
  EXPECT_EQ(generated.record.kl.at(0)[0], 0.0);
  for (size_t i = 1; i < 5; ++i) EXPECT_GT(generated.record.kl.at(0)[i], 0.0);
  // The shadow computes from the last full block on: 32 to 43.
  EXPECT_EQ(generated.rows, 44 + 12);
  EXPECT_EQ(RowsOf(Comparing(1, 40, 5, {TestSteering(1, {1}, 33)})).rows, 44 + 12);
  EXPECT_EQ(RowsOf(Comparing(1, 40, 5, {TestSteering(1, {1})})).rows, 44 + 44);
}

TEST(CoreCompare, AShadowBeginsWithTheTextThatTheSteeringWaitsFor) {
  const RequestRecord plain = RunAlone(TestRequest(1, 20, 10));
  std::vector<uint32_t> tokens = TestRequest(1, 20, 10).prompt_token_ids;
  for (size_t i = 0; i < 4; ++i) tokens.push_back(plain.tokens.at(0)[i].token_id);
  SteeringParams after = TestSteering(1, {1});
  after.after_text = TextOf(kOptions, tokens);
  const Counted counted = RowsOf(Comparing(1, 20, 10, {after}));
  for (size_t i = 0; i < 10; ++i) {
    // The fourth token completes the text; the row of the fifth is the first that is steered.
    EXPECT_EQ(*counted.record.kl.at(0)[i] > 0.0, i >= 5) << i;
  }
  EXPECT_EQ(counted.rows, 29 + (29 - 16));
}

TEST(CoreCompare, ChunksAndCompletionsChangeNothing) {
  EngineRequest request = Comparing(1, 37, 9, {TestSteering(1, {1}, 20)});
  request.completions = 4;
  request.sampling.temperature = 1.0f;
  for (const int32_t chunk : {2, 3, 5, 16, 64, 300}) {
    const Counted counted = RowsOf(request, chunk);
    EXPECT_EQ(counted.record.kl.size(), 4u);
  }
}

TEST(CoreCompare, FewCreditsAndPreemptionsChangeNothing) {
  EngineRequest request = Comparing(1, 30, 20, {TestSteering(1, {1}, 10)});
  request.completions = 3;
  request.sampling.temperature = 1.0f;
  const RequestRecord alone = RunAlone(request);
  for (const bool prefix_cache : {true, false}) {
    EngineOptions options = kOptions;
    options.prefix_cache = prefix_cache;
    CoreHarness harness(options, 9);
    request.credits = 2;
    harness.Submit(request);
    for (RequestId id = 2; id < 5; ++id) {
      EngineRequest other = Comparing(id, 20, 30, {TestSteering(2, {0})});
      other.sampling.seed = id;
      harness.Submit(other);
    }
    for (int i = 0; i < 200; ++i) {
      harness.Run();
      harness.core().Grant(1, 1, 0);
    }
    harness.ExpectIdle();
    EXPECT_GT(harness.Stats().preemptions, 0u);
    EXPECT_EQ(Difference(harness.transcript().of(1), alone), "");
  }
}

TEST(CoreCompare, BothRowsOfATokenAreInTheSameStepAndOthersGoOn) {
  CoreHarness harness(kOptions, 128);
  bool compared = false;
  harness.fake().on_forward = [&](const ForwardStep& step) {
    std::map<int32_t, int32_t> rows_at;
    for (const SequenceSpan& span : step.tables.sequences) {
      if (span.row_count == 1) ++rows_at[span.first_position];
    }
    compared = compared || rows_at[45] == 2;
    EXPECT_EQ(rows_at[45] % 2, 0);  // two or none
    return Status::Ok();
  };
  harness.Submit(Comparing(1, 40, 10, {TestSteering(1, {1})}));
  harness.Submit(TestRequest(2, 60, 10, 3));
  harness.Run();
  EXPECT_TRUE(compared);
  EXPECT_EQ(Difference(harness.transcript().of(2), RunAlone(TestRequest(2, 60, 10, 3))), "");
}

TEST(CoreCompare, TheBlocksOfAShadowAreThoseOfAnUnsteeredRequest) {
  CoreHarness harness(kOptions, 128);
  harness.Run(Comparing(1, 64, 2, {TestSteering(1, {1})}));
  EXPECT_EQ(harness.Run(TestRequest(2, 64, 2)).done->cached_prompt_tokens, 48u);
  EXPECT_EQ(Difference(harness.transcript().of(2), RunAlone(TestRequest(2, 64, 2))), "");
}

TEST(CoreCompare, ACancelFreesBothSequences) {
  CoreHarness harness(kOptions, 64);
  EngineRequest request = Comparing(1, 30, 50, {TestSteering(1, {1})});
  request.completions = 2;
  harness.Submit(request);
  for (int i = 0; i < 4; ++i) harness.Step();
  harness.core().Cancel(1, 0);
  harness.Step();
  harness.core().Cancel(1, -1);
  harness.ExpectIdle();
}

TEST(CoreCompare, NeedsTwoRowsAStepAndTwiceTheBlocks) {
  EngineOptions options = kOptions;
  options.max_batch_tokens = 1;
  CoreHarness one(options, 64);
  const EngineRequest request = Comparing(1, 20, 4, {TestSteering(1, {1})});
  EXPECT_EQ(one.Run(request).done->status.code(), StatusCode::kFailedPrecondition);
  CoreHarness small(kOptions, 3);
  EXPECT_EQ(small.Run(request).done->status.code(), StatusCode::kInvalidArgument);
  CoreHarness enough(kOptions, 4);
  EXPECT_TRUE(enough.Run(request).done->status.ok());
}

TEST(CoreCompare, FailsClosedWhenADeviceDoesNotCompare) {
  CoreHarness harness(kOptions, 64);
  harness.fake().compares = false;
  const RequestRecord& record = harness.Run(Comparing(1, 20, 4, {TestSteering(1, {1})}));
  EXPECT_EQ(record.done->status.code(), StatusCode::kInternal);
  EXPECT_EQ(record.token_events, 0);
}

}  // namespace
}  // namespace llama_steer
