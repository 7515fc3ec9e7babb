// The behaviour of the engine on a model made of hashes.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

TEST(Core, GeneratesUntilTheLengthAndFreesEverything) {
  CoreHarness harness(TestOptions(), 64);
  const RequestRecord& record = harness.Run(TestRequest(1, 20, 5));
  EXPECT_EQ(record.tokens.at(0).size(), 5u);
  EXPECT_EQ(record.last_finish.at(0), FinishReason::kLength);
  ASSERT_TRUE(record.done);
  EXPECT_TRUE(record.done->status.ok());
  EXPECT_EQ(record.done->finish_reasons, std::vector{FinishReason::kLength});
  EXPECT_EQ(record.done->prompt_tokens, 20u);
  EXPECT_EQ(record.done->completion_tokens, 5u);
  harness.ExpectIdle();
}

TEST(Core, AStopTokenIsTheLastTokenAndEndsWithStop) {
  EngineRequest request = TestRequest(1, 20, 10);
  const uint32_t third = RunAlone(request).tokens.at(0)[2].token_id;
  request.sampling.stop_token_ids = {999999, third};
  CoreHarness harness(TestOptions(), 64);
  const RequestRecord& record = harness.Run(request);
  ASSERT_EQ(record.tokens.at(0).size(), 3u);
  EXPECT_EQ(record.tokens.at(0)[2].token_id, third);
  EXPECT_EQ(record.last_finish.at(0), FinishReason::kStop);
  EXPECT_EQ(record.done->finish_reasons, std::vector{FinishReason::kStop});
}

TEST(Core, PrefillOnlyEndsWithoutATokenEvent) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = TestRequest(1, 100, 0);
  request.prompt_logprobs_from = 1;
  const RequestRecord& record = harness.Run(request);
  EXPECT_TRUE(record.done->status.ok());
  EXPECT_EQ(record.token_events, 0);
  EXPECT_EQ(record.prompt_logprobs.size(), 99u);
  EXPECT_EQ(record.prompt_logprobs_from, 1);
  EXPECT_EQ(record.done->timings.time_to_first_token_ns, 0u);
}

TEST(Core, ScoresPromptTokensInOrderWithAFewRowsAStep) {
  EngineOptions options = TestOptions();
  options.max_running_sequences = 1;
  options.max_batch_tokens = 500;
  CoreHarness harness(options, 64);
  EngineRequest request = TestRequest(1, 200, 3);
  request.prompt_logprobs_from = 50;
  harness.fake().on_forward = [&](const ForwardStep& step) {
    EXPECT_LE(static_cast<int32_t>(step.logit_rows.size()), MaxLogitRows(options));
    return Status::Ok();
  };
  const RequestRecord& record = harness.Run(request);
  EXPECT_EQ(record.prompt_logprobs_from, 50);
  ASSERT_EQ(record.prompt_logprobs.size(), 150u);
  EXPECT_EQ(record.prompt_logprobs[0].token_id, request.prompt_token_ids[50]);
  harness.ExpectIdle();
}

TEST(Core, ALongPromptDoesNotHoldUpRunningStreams) {
  CoreHarness harness(TestOptions(), 256);
  harness.Submit(TestRequest(1, 10, 30));
  harness.Step();
  harness.Submit(TestRequest(2, 1000, 1));
  for (int64_t step = 1; step <= 10; ++step) {
    harness.Step();
    EXPECT_EQ(harness.transcript().of(1).token_events, step + 1);
  }
  harness.Run();
  harness.ExpectIdle();
}

TEST(Core, FillsTheTokenBudgetAndNeverExceedsIt) {
  CoreHarness harness(TestOptions(), 256);
  std::vector<int32_t> rows;
  harness.fake().on_forward = [&](const ForwardStep& step) {
    rows.push_back(static_cast<int32_t>(step.tables.token_ids.size()));
    return Status::Ok();
  };
  harness.Submit(TestRequest(1, 100, 1));
  harness.Submit(TestRequest(2, 60, 1, 2));
  harness.Run();
  EXPECT_EQ(rows, (std::vector<int32_t>{64, 64, 32}));
}

TEST(Core, RequestsAreServedInOrderOfArrival) {
  EngineOptions options = TestOptions();
  options.max_running_sequences = 1;
  CoreHarness harness(options, 64);
  for (RequestId id = 1; id <= 3; ++id) harness.Submit(TestRequest(id, 10, 2));
  harness.Step();
  EXPECT_EQ(harness.transcript().of(1).token_events, 1);
  EXPECT_EQ(harness.transcript().of(2).token_events, 0);
  EXPECT_EQ(harness.Stats().waiting_requests, 2u);
  EXPECT_EQ(harness.Stats().waiting_prompt_tokens, 20u);
  harness.Run();
  harness.ExpectIdle();
}

TEST(Core, WithoutCreditsNothingIsScheduled) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = TestRequest(1, 10, 5);
  request.credits = 0;
  harness.Submit(request);
  EXPECT_FALSE(harness.Step());
  harness.core().Grant(1, 2, 0);
  harness.Run();
  EXPECT_EQ(harness.transcript().of(1).token_events, 2);
  harness.core().Grant(1, 100, 0);
  harness.Run();
  EXPECT_EQ(harness.transcript().of(1).token_events, 5);
  harness.ExpectIdle();
}

TEST(Core, CompletionsNeverOverdrawTheCreditsAndStillAgree) {
  for (const bool prefix_cache : {true, false}) {
    for (const int32_t prompt : {1, 15, 16, 17, 32, 40}) {
      EngineRequest request = TestRequest(1, prompt, 6);
      request.completions = 5;
      const RequestRecord alone = RunAlone(request);
      EngineOptions options = TestOptions();
      options.prefix_cache = prefix_cache;
      CoreHarness harness(options, 64);
      request.credits = 1;
      harness.Submit(request);
      int64_t granted = 1;
      for (int i = 0; i < 100 && !harness.transcript().of(1).done; ++i) {
        harness.Run();
        ASSERT_LE(harness.transcript().of(1).token_events, granted);
        harness.core().Grant(1, 2, 0);
        granted += 2;
      }
      EXPECT_EQ(Difference(harness.transcript().of(1), alone), "") << "prompt " << prompt;
      harness.ExpectIdle();
    }
  }
}

TEST(Core, FewCreditsAreSharedAmongTheCompletions) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = TestRequest(1, 10, 20);
  request.completions = 4;
  request.credits = 1;
  harness.Submit(request);
  for (int i = 0; i < 40; ++i) {
    harness.Run();
    harness.core().Grant(1, 1, 0);
  }
  for (const auto& [completion, tokens] : harness.transcript().of(1).tokens) {
    EXPECT_EQ(tokens.size(), 10u) << completion;
  }
  harness.core().Cancel(1, -1);
  harness.ExpectIdle();
}

TEST(Core, CompletionsEqualSeparateDrawsOfThePrompt) {
  EngineRequest request = TestRequest(1, 37, 8);
  request.completions = 3;
  CoreHarness harness(TestOptions(), 64);
  const RequestRecord& record = harness.Run(request);
  ASSERT_EQ(record.tokens.size(), 3u);
  EXPECT_EQ(Difference(record, RunAlone(request)), "");
  EngineRequest single = TestRequest(2, 37, 8);
  const RequestRecord first = RunAlone(single);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(record.tokens.at(0)[i].token_id, first.tokens.at(0)[i].token_id);
  }
  EXPECT_NE(record.tokens.at(1)[0].token_id, record.tokens.at(2)[0].token_id);
}

TEST(Core, CancellingOneCompletionLeavesTheOthers) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = TestRequest(1, 20, 10);
  request.completions = 3;
  const RequestRecord alone = RunAlone(request);
  harness.Submit(request);
  harness.core().Cancel(1, 0);  // before the prompt was computed
  for (int i = 0; i < 3; ++i) harness.Step();
  harness.core().Cancel(1, 2);  // while it runs
  harness.Run();
  const RequestRecord& record = harness.transcript().of(1);
  EXPECT_FALSE(record.tokens.contains(0));
  EXPECT_EQ(record.tokens.at(1).size(), 10u);
  EXPECT_LT(record.tokens.at(2).size(), 10u);
  EXPECT_EQ(DifferenceOfBeginning(record, alone), "");
  EXPECT_TRUE(record.done->status.ok());
  EXPECT_EQ(
      record.done->finish_reasons,
      (std::vector{FinishReason::kCancelled, FinishReason::kLength, FinishReason::kCancelled}));
  harness.ExpectIdle();
}

TEST(Core, CancelFreesTheBlocksAtOnce) {
  CoreHarness harness(TestOptions(), 64);
  harness.Submit(TestRequest(1, 100, 10));
  harness.Step();
  EXPECT_GT(harness.Stats().kv_blocks_used, 0u);
  harness.core().Cancel(1, -1);
  EXPECT_EQ(harness.Stats().kv_blocks_used, 0u);
  EXPECT_EQ(harness.transcript().of(1).done->status.code(), StatusCode::kCancelled);
  EXPECT_EQ(harness.transcript().of(1).done->finish_reasons, std::vector{FinishReason::kCancelled});
  harness.core().Cancel(1, -1);  // late: nothing more is said
  harness.core().Cancel(77, -1);
  harness.core().Grant(1, 1, 0);
  harness.ExpectIdle();
}

TEST(Core, ADeadlineEndsARequestThatWaitsForCredits) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = TestRequest(1, 10, 10);
  request.credits = 2;
  request.deadline_ns = 1000;
  harness.Submit(request);
  EXPECT_EQ(harness.core().ExpireDeadlines(999), 1000u);
  harness.Run();
  EXPECT_EQ(harness.core().ExpireDeadlines(1000), 0u);
  EXPECT_EQ(harness.transcript().of(1).done->status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(harness.transcript().of(1).done->completion_tokens, 2u);
  harness.ExpectIdle();
}

TEST(Core, NonFiniteLogitsFailTheirRequestOnly) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest poisoned = TestRequest(1, 10, 10);
  poisoned.prompt_token_ids[4] = kPoisonToken;
  harness.Submit(poisoned);
  harness.Submit(TestRequest(2, 10, 10));
  harness.Run();
  EXPECT_EQ(harness.transcript().of(1).done->status.code(), StatusCode::kInternal);
  EXPECT_NE(harness.transcript().of(1).done->status.message().find("non-finite"),
            std::string::npos);
  EXPECT_TRUE(harness.transcript().of(2).done->status.ok());
  EXPECT_EQ(harness.Stats().nonfinite_rows, 1u);
  harness.ExpectIdle();
}

TEST(Core, PreemptsTheYoungestAndSaysTheSame) {
  for (const bool prefix_cache : {true, false}) {
    EngineOptions options = TestOptions();
    options.prefix_cache = prefix_cache;
    CoreHarness harness(options, 10);
    std::vector<EngineRequest> requests;
    for (RequestId id = 1; id <= 3; ++id) {
      requests.push_back(TestRequest(id, 30, 60, static_cast<uint32_t>(id)));
      harness.Submit(requests.back());
    }
    harness.Run();
    EXPECT_GT(harness.Stats().preemptions, 0u);
    for (const EngineRequest& request : requests) {
      EXPECT_EQ(Difference(harness.transcript().of(request.id), RunAlone(request)), "");
    }
    harness.ExpectIdle();
  }
}

TEST(Core, AStreamThatIsNotReadGivesItsBlocksToOthers) {
  CoreHarness harness(TestOptions(), 8);
  EngineRequest slow = TestRequest(1, 60, 60);
  const RequestRecord alone = RunAlone(slow);
  slow.credits = 1;
  harness.Submit(slow);
  harness.Run();
  EXPECT_TRUE(harness.Run(TestRequest(2, 60, 60)).done->status.ok());
  harness.core().Grant(1, 1000, 0);
  harness.Run();
  EXPECT_EQ(Difference(harness.transcript().of(1), alone), "");
  harness.ExpectIdle();
}

TEST(Core, UnreadStreamsThatHoldAllBlocksAreMovedAside) {
  CoreHarness harness(TestOptions(), 8);
  for (RequestId id = 1; id <= 2; ++id) {
    EngineRequest slow = TestRequest(id, 60, 4, static_cast<uint32_t>(id));
    slow.credits = 1;
    harness.Submit(slow);
    harness.Run();
  }
  EXPECT_EQ(harness.Stats().kv_blocks_used, 8u);
  EXPECT_TRUE(harness.Run(TestRequest(3, 60, 4, 3)).done->status.ok());
  for (RequestId id = 1; id <= 2; ++id) {
    harness.core().Grant(id, 100, 0);
    harness.Run();
    const EngineRequest request = TestRequest(id, 60, 4, static_cast<uint32_t>(id));
    EXPECT_EQ(Difference(harness.transcript().of(id), RunAlone(request)), "");
  }
  harness.ExpectIdle();
}

TEST(Core, ManyUnreadStreamsDoNotKeepOthersOut) {
  EngineOptions options = TestOptions();
  options.max_running_sequences = 2;
  CoreHarness harness(options, 64);
  for (RequestId id = 1; id <= 10; ++id) {
    EngineRequest slow = TestRequest(id, 10, 10);
    slow.credits = 1;
    harness.Submit(slow);
  }
  harness.Run();
  EXPECT_TRUE(harness.Run(TestRequest(11, 10, 10)).done->status.ok());
}

TEST(Core, ReusesThePrefixAndSaysTheSame) {
  CoreHarness harness(TestOptions(), 64);
  const EngineRequest request = TestRequest(1, 50, 20);
  harness.Run(request);
  EngineRequest again = request;
  again.id = 2;
  const RequestRecord& second = harness.Run(again);
  EXPECT_EQ(second.done->cached_prompt_tokens, 48u);
  EXPECT_EQ(Difference(second, harness.transcript().of(1)), "");
  EXPECT_EQ(harness.Stats().cached_prompt_tokens, 48u);
  EXPECT_EQ(harness.Stats().prompt_tokens, 100u);
}

TEST(Core, TheLastPromptTokenIsAlwaysComputed) {
  CoreHarness harness(TestOptions(), 64);
  harness.Run(TestRequest(1, 48, 1));
  EXPECT_EQ(harness.Run(TestRequest(2, 48, 1)).done->cached_prompt_tokens, 32u);
}

TEST(Core, GeneratedTokensAreCachedForTheNextTurn) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = TestRequest(1, 20, 40);
  const RequestRecord& first = harness.Run(request);
  EngineRequest next = TestRequest(2, 20, 4);
  for (const ScoredToken& token : first.tokens.at(0))
    next.prompt_token_ids.push_back(token.token_id);
  const RequestRecord& second = harness.Run(next);
  EXPECT_EQ(second.done->cached_prompt_tokens, 48u);
  EXPECT_EQ(Difference(second, RunAlone(next)), "");
}

TEST(Core, AnotherSaltSharesNothing) {
  CoreHarness harness(TestOptions(), 64);
  harness.Run(TestRequest(1, 50, 1));
  EngineRequest other = TestRequest(2, 50, 1);
  other.cache_salt = "tenant";
  EXPECT_EQ(harness.Run(other).done->cached_prompt_tokens, 0u);
}

TEST(Core, CapturedAndScoredPositionsAreNotTakenFromTheCache) {
  CoreHarness harness(TestOptions(), 64);
  harness.Run(TestRequest(1, 64, 1));
  EngineRequest scored = TestRequest(2, 64, 1);
  scored.prompt_logprobs_from = 33;  // needs the logits of position 32
  EXPECT_EQ(harness.Run(scored).done->cached_prompt_tokens, 32u);
  EXPECT_EQ(Difference(harness.transcript().of(2), RunAlone(scored)), "");
  EngineRequest captured = TestRequest(3, 64, 1);
  captured.capture = CaptureParams{.sites = {CaptureSiteKind::kResidPost}, .layers = {1}};
  captured.capture->position_begin = 17;
  EXPECT_EQ(harness.Run(captured).done->cached_prompt_tokens, 16u);
  EXPECT_EQ(Difference(harness.transcript().of(3), RunAlone(captured)), "");
}

TEST(Core, ManyRequestsLeaveNothingBehind) {
  CoreHarness harness(TestOptions(), 32);
  for (RequestId id = 1; id <= 10000; ++id) {
    EngineRequest request =
        TestRequest(id, 5 + static_cast<int32_t>(id % 40), 2, static_cast<uint32_t>(id));
    if (id % 3 == 0) request.steering = {TestSteering(1, {0, 1})};
    harness.Submit(request);
    if (id % 5 == 0) harness.core().Cancel(id, -1);
    if (id % 8 == 0) harness.Run();
  }
  harness.Run();
  harness.ExpectIdle();
  EXPECT_EQ(harness.fake().vector_rows(), kTestVectors * kTestLayers);
}

}  // namespace
}  // namespace llama_steer
