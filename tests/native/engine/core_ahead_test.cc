// Steps that are begun while one runs: when, and that nobody can tell.
#include <gtest/gtest.h>

#include <vector>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

constexpr int32_t kBlocks = 64;

class CoreAhead : public testing::Test {
 protected:
  /// Runs a request by itself; the steps that were begun ahead.
  uint64_t StepsAhead(const EngineRequest& request) {
    CoreHarness harness(TestOptions(), kBlocks, Pace::kLate);
    EXPECT_EQ(Difference(harness.Run(request), RunAlone(request)), "");
    harness.ExpectIdle();
    return harness.ahead().steps_ahead();
  }

  /// Its `token`-th token, counted from 0, ends the request.
  static EngineRequest EndingAt(EngineRequest request, size_t token) {
    const RequestRecord alone = RunAlone(request);
    const std::vector<ScoredToken>& tokens = alone.tokens.at(0);
    for (size_t i = 0; i < token; ++i) EXPECT_NE(tokens[i].token_id, tokens[token].token_id);
    request.sampling.stop_token_ids = {tokens[token].token_id};
    return request;
  }

  CoreHarness harness_{TestOptions(), kBlocks, Pace::kLate};
};

TEST_F(CoreAhead, EveryDecodeStepButTheFirstIsBegunAhead) {
  // Ten tokens: the prompt's step, the first decode step, and eight behind it.
  EXPECT_EQ(StepsAhead(TestRequest(1, 20, 10)), 8u);
}

TEST_F(CoreAhead, SteeringGatesOnTokensAdaptersAndBiasesDoNotHoldAStepUp) {
  SteeringParams gated = TestSteering(1, {1, 2});
  gated.gate = GateParams{.vector = 2, .layer = 1};
  EngineRequest request = SteeredRequest(1, 20, 10, {TestSteering(3, {0, 3}, 4, 24), gated});
  request.adapter = 1;
  request.sampling.logit_bias = {{.token_id = 3, .bias = 1.5f}};
  request.completions = 3;
  EXPECT_EQ(StepsAhead(request), 8u);
}

TEST_F(CoreAhead, WhatAsksForTokensIsTakenStepByStep) {
  const EngineRequest plain = TestRequest(1, 20, 10);
  std::vector<EngineRequest> requests(6, plain);
  requests[0].sampling.repetition_penalty = 1.3f;
  requests[1].sampling.presence_penalty = 0.5f;
  requests[2].sampling.frequency_penalty = 0.5f;
  requests[3].probes = {{.vector = 1, .layer = 1, .read = ProbeRead::kEachToken}};
  requests[4].capture = CaptureParams{.sites = {CaptureSiteKind::kResidPost}, .layers = {1}};
  requests[5].steering = {TestSteering(1, {1})};
  requests[5].compare_unsteered = true;
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(StepsAhead(requests[i]), 0u) << i;
}

TEST_F(CoreAhead, TextIsWaitedForAndThenNoMore) {
  EngineRequest request = TestRequest(1, 20, 24);
  const RequestRecord alone = RunAlone(request);
  std::vector<uint32_t> middle;
  for (size_t i = 4; i < 12; ++i) middle.push_back(alone.tokens.at(0)[i].token_id);
  SteeringParams late = TestSteering(1, {1});
  late.after_text = TextOf(TestOptions(), middle);
  request.steering = {late};
  // Found with the twelfth token; the thirteenth is the last that was not begun ahead.
  EXPECT_EQ(StepsAhead(request), 11u);
}

TEST_F(CoreAhead, ACaptureOfThePromptIsOverWhenThePromptIs) {
  EngineRequest request = TestRequest(1, 20, 10);
  request.capture = CaptureParams{.sites = {CaptureSiteKind::kResidPost}, .layers = {1}};
  request.capture->position_end = 20;
  EXPECT_EQ(StepsAhead(request), 8u);
}

TEST_F(CoreAhead, TheRowOfASequenceThatHasEndedLeavesNoTrace) {
  const EngineRequest stopped = EndingAt(TestRequest(1, 20, 30, 1), 6);
  const RequestRecord& record = harness_.Run(stopped);
  EXPECT_EQ(Difference(record, RunAlone(stopped)), "");
  EXPECT_EQ(record.done->finish_reasons, std::vector{FinishReason::kStop});
  harness_.ExpectIdle();
  // Seven tokens in seven steps; an eighth has run for nothing.
  const EngineStats stats = harness_.Stats();
  EXPECT_EQ(harness_.ahead().steps_ahead(), 6u);
  EXPECT_EQ(stats.steps, 7u);
  EXPECT_EQ(stats.generated_tokens, 7u);
  EXPECT_EQ(harness_.core().last_step_rows(), 0);
}

TEST_F(CoreAhead, AStepOfWhichOneSequenceHasEndedCountsTheOthers) {
  harness_.Submit(EndingAt(TestRequest(1, 20, 30, 1), 6));
  harness_.Submit(TestRequest(2, 20, 30, 2));
  std::vector<int32_t> rows;
  while (harness_.Step()) rows.push_back(harness_.core().last_step_rows());
  std::vector<int32_t> expected(30, 1);
  expected[0] = 40;
  std::fill(expected.begin() + 1, expected.begin() + 7, 2);
  EXPECT_EQ(rows, expected);
  harness_.ExpectIdle();
}

TEST_F(CoreAhead, BlocksOfTheEndedAreGivenAwayWhileTheirLastRowRuns) {
  // Four requests of three blocks each on eight blocks, ends all over the place.
  CoreHarness harness(TestOptions(), 8, Pace::kLate);
  std::vector<EngineRequest> requests;
  for (RequestId id = 1; id <= 12; ++id) {
    requests.push_back(EndingAt(TestRequest(id, 17, 24, static_cast<uint32_t>(id)), 1 + id));
    harness.Submit(requests.back());
  }
  harness.Run();
  harness.ExpectIdle();
  EXPECT_GT(harness.ahead().steps_ahead(), 10u);
  for (const EngineRequest& request : requests) {
    EXPECT_EQ(Difference(harness.transcript().of(request.id), RunAlone(request)), "");
  }
}

TEST_F(CoreAhead, ACachedBlockHoldsNothingOfAWastedRow) {
  // The row for nothing is the last of a block, and the first of one.
  for (const auto& [last, cached] : {std::pair{11u, 16u}, std::pair{12u, 32u}}) {
    SCOPED_TRACE(last);
    CoreHarness harness(TestOptions(), kBlocks, Pace::kLate);
    EngineRequest request = EndingAt(TestRequest(1, 20, 40, 1), last);
    const RequestRecord first = harness.Run(request);
    EngineRequest longer = TestRequest(2, 20, 20, 1);
    for (const ScoredToken& token : first.tokens.at(0)) {
      longer.prompt_token_ids.push_back(token.token_id);
    }
    longer.prompt_token_ids.push_back(9);
    const RequestRecord& record = harness.Run(longer);
    EXPECT_EQ(record.done->cached_prompt_tokens, cached);
    EXPECT_EQ(Difference(record, RunAlone(longer)), "");
  }
}

TEST_F(CoreAhead, ACancelIsFinalThoughItsRowRuns) {
  const EngineRequest other = TestRequest(2, 20, 30, 2);
  harness_.Submit(TestRequest(1, 20, 1000, 1));
  harness_.Submit(other);
  for (int i = 0; i < 5; ++i) harness_.Step();
  harness_.core().Cancel(1, -1);
  const RequestRecord& record = harness_.transcript().of(1);
  ASSERT_TRUE(record.done.has_value());
  EXPECT_EQ(record.done->completion_tokens, 5u);
  EXPECT_EQ(harness_.Stats().running_requests, 1u);
  harness_.Run();
  harness_.ExpectIdle();
  EXPECT_EQ(record.token_events, 5);
  EXPECT_EQ(Difference(harness_.transcript().of(2), RunAlone(other)), "");
}

TEST_F(CoreAhead, ACompletionIsCancelledWhileTheOthersGoOn) {
  EngineRequest request = TestRequest(1, 20, 12);
  request.completions = 3;
  const RequestRecord alone = RunAlone(request);
  harness_.Submit(request);
  for (int i = 0; i < 4; ++i) harness_.Step();
  harness_.core().Cancel(1, 1);
  harness_.Run();
  harness_.ExpectIdle();
  const RequestRecord& record = harness_.transcript().of(1);
  EXPECT_EQ(DifferenceOfBeginning(record, alone), "");
  EXPECT_EQ(record.tokens.at(0).size(), 12u);
  EXPECT_EQ(record.tokens.at(1).size(), 4u);
  EXPECT_EQ(record.tokens.at(2).size(), 12u);
}

TEST_F(CoreAhead, NoTokenIsDrawnWithoutCredit) {
  EngineRequest request = TestRequest(1, 20, 12);
  request.credits = 5;
  harness_.Submit(request);
  harness_.Run();
  EXPECT_EQ(harness_.transcript().of(1).token_events, 5);
  EXPECT_EQ(harness_.ahead().unseen_rows(), 3u);
  harness_.core().Grant(1, 100, 0);
  harness_.Run();
  harness_.ExpectIdle();
  request.credits = 100;
  EXPECT_EQ(Difference(harness_.transcript().of(1), RunAlone(request)), "");
}

TEST_F(CoreAhead, AReaderThatFallsBehindHoldsNobodyUp) {
  EngineRequest slow = TestRequest(1, 20, 100, 1);
  slow.credits = 2;
  harness_.Submit(slow);
  const RequestRecord& record = harness_.Run(TestRequest(2, 20, 30, 2));
  EXPECT_EQ(record.token_events, 30);
  EXPECT_EQ(harness_.ahead().steps_ahead(), 28u);
}

TEST_F(CoreAhead, ARequestThatArrivesIsPlannedOneStepLaterAtMost) {
  harness_.Submit(TestRequest(1, 20, 100, 1));
  for (int i = 0; i < 5; ++i) harness_.Step();
  harness_.Submit(TestRequest(2, 20, 10, 2));
  harness_.Step();  // the one that ran already
  harness_.Step();
  EXPECT_EQ(harness_.transcript().of(2).token_events, 1);
}

TEST_F(CoreAhead, WaitingForASlotHoldsNobodyUp) {
  EngineOptions options = TestOptions();
  options.max_running_sequences = 2;
  CoreHarness harness(options, kBlocks, Pace::kLate);
  for (RequestId id = 1; id <= 3; ++id) {
    harness.Submit(TestRequest(id, 20, 30, static_cast<uint32_t>(id)));
  }
  harness.Run();
  harness.ExpectIdle();
  EXPECT_EQ(harness.ahead().steps_ahead(), 28u + 28u);
}

TEST_F(CoreAhead, AFaultOfTheNextStepLosesNothingOfTheOneBefore) {
  int steps = 0;
  harness_.fake().on_forward = [&](const ForwardStep&) {
    return ++steps == 6 ? Status::Internal("ECC error") : Status::Ok();
  };
  harness_.Submit(TestRequest(1, 20, 100));
  StatusOr<bool> stepped = true;
  while (stepped.ok() && stepped.value()) stepped = harness_.core().Step();
  EXPECT_EQ(stepped.status().message(), "ECC error");
  EXPECT_EQ(harness_.transcript().of(1).token_events, 5);
  harness_.core().EndAll(Status::Internal("device fault"));
  harness_.ExpectIdle();
}

TEST_F(CoreAhead, TheLensWaitsForTheStepThatRuns) {
  // Without credit for its rows the capture stands still while the other request runs ahead; its
  // means go through the lens when its only completion is cancelled.
  EngineRequest captured = TestRequest(1, 20, 100, 1);
  captured.capture = CaptureParams{.sites = {CaptureSiteKind::kResidPost}, .layers = {1}};
  captured.capture->mean = true;
  captured.capture->lens_top_k = 2;
  captured.credits = 3;
  const EngineRequest other = TestRequest(2, 20, 40, 2);
  harness_.Submit(captured);
  harness_.Submit(other);
  for (int i = 0; i < 12; ++i) harness_.Step();
  const uint64_t ahead = harness_.ahead().steps_ahead();
  EXPECT_GT(ahead, 4u);
  harness_.core().Cancel(1, 0);
  const RequestRecord& record = harness_.transcript().of(1);
  ASSERT_TRUE(record.done.has_value());
  EXPECT_TRUE(record.done->status.ok()) << record.done->status.message();
  ASSERT_EQ(record.captures.size(), 1u);
  EXPECT_EQ(record.captures.begin()->second.lens.size(), 1u);
  harness_.Run();
  harness_.ExpectIdle();
  EXPECT_GT(harness_.ahead().steps_ahead(), ahead);
  EXPECT_EQ(Difference(harness_.transcript().of(2), RunAlone(other)), "");
}

TEST_F(CoreAhead, AFaultThatTheLensMeetsEndsTheEngineAndNoTokenIsMadeUp) {
  EngineRequest captured = TestRequest(1, 20, 100, 1);
  captured.capture = CaptureParams{.sites = {CaptureSiteKind::kResidPost}, .layers = {1}};
  captured.capture->mean = true;
  captured.credits = 3;
  harness_.Submit(captured);
  harness_.Submit(TestRequest(2, 20, 100, 2));
  for (int i = 0; i < 12; ++i) harness_.Step();
  const int64_t tokens = harness_.transcript().of(2).token_events;
  harness_.fake().on_forward = [](const ForwardStep&) { return Status::Internal("ECC error"); };
  harness_.core().Cancel(1, 0);
  EXPECT_EQ(harness_.transcript().of(1).done->status.code(), StatusCode::kInternal);
  EXPECT_EQ(harness_.core().Step().status().message(), "ECC error");
  EXPECT_EQ(harness_.transcript().of(2).token_events, tokens);
}

TEST_F(CoreAhead, VectorsAndAdaptersStayWhileARowThatUsesThemRuns) {
  EngineRequest request = SteeredRequest(1, 20, 100, {TestSteering(1, {0, 1, 2, 3})});
  request.adapter = 1;
  harness_.Submit(request);
  for (int i = 0; i < 5; ++i) harness_.Step();
  harness_.core().DropVector(1);
  harness_.core().DropAdapter(1);
  harness_.core().Cancel(1, -1);
  EXPECT_EQ(harness_.fake().vector_rows(), kTestVectors * kTestLayers);
  EXPECT_EQ(harness_.fake().adapters(), kTestAdapters);
  harness_.Run();
  harness_.ExpectIdle();
  EXPECT_EQ(harness_.fake().vector_rows(), (kTestVectors - 1) * kTestLayers);
  EXPECT_EQ(harness_.fake().adapters(), kTestAdapters - 1);
}

TEST_F(CoreAhead, AnEngineThatEndsWaitsForTheStepThatRuns) {
  harness_.Submit(TestRequest(1, 20, 100));
  for (int i = 0; i < 5; ++i) harness_.Step();
  harness_.core().EndAll({StatusCode::kCancelled, "the engine was closed"});
  harness_.ExpectIdle();
  EXPECT_EQ(harness_.transcript().of(1).token_events, 5);
}

}  // namespace
}  // namespace llama_steer
