// Gates: what is computed, counted, cached and refused.
#include <gtest/gtest.h>

#include <limits>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

constexpr float kNever = 1e30f;
constexpr float kAlways = -1e30f;

SteeringParams Gated(GateScope scope, float threshold, std::vector<int32_t> layers = {1, 2}) {
  SteeringParams steering = TestSteering(1, std::move(layers));
  steering.gate = GateParams{.vector = 2, .layer = 1, .threshold = threshold, .scope = scope};
  return steering;
}

/// The same but for what is said about gates.
void ExpectSameButForGates(RequestRecord gated, RequestRecord other) {
  for (RequestRecord* record : {&gated, &other}) {
    for (AppliedSteeringReport& report : record->done->applied) {
      report.gate_evaluations = 0;
      report.gate_fired = 0;
    }
  }
  EXPECT_EQ(Difference(gated, other), "");
}

TEST(CoreGate, OpenOnEveryTokenIsNoGate) {
  const SteeringParams gated = Gated(GateScope::kEachToken, kAlways);
  SteeringParams ungated = gated;
  ungated.gate.reset();
  const RequestRecord record = RunAlone(SteeredRequest(1, 20, 6, {gated}));
  EXPECT_EQ(record.done->applied[0].gate_evaluations, 25u);
  EXPECT_EQ(record.done->applied[0].gate_fired, 25u);
  ExpectSameButForGates(record, RunAlone(SteeredRequest(1, 20, 6, {ungated})));
}

TEST(CoreGate, ClosedOnEveryTokenIsNoSteeringAndTheProofSaysSo) {
  RequestRecord record = RunAlone(SteeredRequest(1, 20, 6, {Gated(GateScope::kEachToken, kNever)}));
  const AppliedSteeringReport& proof = record.done->applied[0];
  EXPECT_EQ(proof.gate_evaluations, 25u);
  EXPECT_EQ(proof.gate_fired, 0u);
  EXPECT_EQ(proof.prompt_tokens + proof.generated_tokens, 0u);
  EXPECT_EQ(proof.steered_rows, 0u);
  record.done->applied.clear();
  EXPECT_EQ(Difference(record, RunAlone(TestRequest(1, 20, 6))), "");
}

TEST(CoreGate, OnEachTokenItActsWhereItFires) {
  CoreHarness harness(TestOptions(), 64);
  const RequestRecord& record =
      harness.Run(SteeredRequest(1, 60, 20, {Gated(GateScope::kEachToken, 0.1f)}));
  const AppliedSteeringReport& proof = record.done->applied[0];
  EXPECT_EQ(proof.gate_evaluations, 79u);
  EXPECT_GT(proof.gate_fired, 10u);
  EXPECT_LT(proof.gate_fired, 60u);
  EXPECT_EQ(proof.prompt_tokens + proof.generated_tokens, proof.gate_fired);
  EXPECT_EQ(proof.steered_rows, 2 * proof.gate_fired);
  EXPECT_EQ(harness.Stats().gate_evaluations, 79u);
  EXPECT_EQ(harness.Stats().gate_fired, proof.gate_fired);
}

TEST(CoreGate, EvaluatesOnlyTokensThatTheSteeringIsMeantFor) {
  SteeringParams gated = Gated(GateScope::kEachToken, kAlways);
  gated.position_begin = 18;
  gated.position_end = 22;
  EXPECT_EQ(RunAlone(SteeredRequest(1, 20, 6, {gated})).done->applied[0].gate_evaluations, 4u);
}

TEST(CoreGate, TheBlocksOfAGateOnEachTokenAreKeyedByItsParametersAndProveIt) {
  CoreHarness harness(TestOptions(), 64);
  const EngineRequest request = SteeredRequest(1, 70, 4, {Gated(GateScope::kEachToken, 0.0f)});
  const RequestRecord first = harness.Run(request);
  EngineRequest again = request;
  again.id = 2;
  const RequestRecord& second = harness.Run(again);
  EXPECT_EQ(second.done->cached_prompt_tokens, 64u);
  EXPECT_EQ(Difference(second, first), "");
  const EngineRequest other = SteeredRequest(3, 70, 4, {Gated(GateScope::kEachToken, 0.01f)});
  EXPECT_EQ(harness.Run(other).done->cached_prompt_tokens, 0u);
  EXPECT_EQ(harness.Run(TestRequest(4, 70, 4)).done->cached_prompt_tokens, 0u);
}

class PromptScope : public testing::TestWithParam<GateScope> {};
INSTANTIATE_TEST_SUITE_P(Scopes, PromptScope,
                         testing::Values(GateScope::kPromptLastToken, GateScope::kPromptMean));

TEST_P(PromptScope, FiredIsNoGate) {
  const SteeringParams gated = Gated(GetParam(), kAlways);
  SteeringParams ungated = gated;
  ungated.gate.reset();
  for (const bool prefix_cache : {false, true}) {
    for (const int32_t chunk : {5, 64}) {
      EngineOptions options = TestOptions();
      options.max_batch_tokens = chunk;
      options.prefix_cache = prefix_cache;
      CoreHarness harness(options, 64);
      const RequestRecord& record = harness.Run(SteeredRequest(1, 40, 6, {gated}));
      EXPECT_EQ(record.done->applied[0].gate_evaluations, 1u);
      EXPECT_EQ(record.done->applied[0].gate_fired, 1u);
      ExpectSameButForGates(record, RunAlone(SteeredRequest(1, 40, 6, {ungated})));
      harness.ExpectIdle();
    }
  }
}

TEST_P(PromptScope, NotFiredIsNoSteeringAndComputesNothingTwice) {
  CoreHarness harness(TestOptions(), 64);
  int64_t rows = 0;
  harness.fake().on_forward = [&](const ForwardStep& step) {
    rows += static_cast<int64_t>(step.tables.token_ids.size());
    return Status::Ok();
  };
  RequestRecord record = harness.Run(SteeredRequest(1, 40, 6, {Gated(GetParam(), kNever)}));
  EXPECT_EQ(rows, 45);
  EXPECT_EQ(record.done->applied[0].gate_evaluations, 1u);
  EXPECT_EQ(record.done->applied[0].gate_fired, 0u);
  EXPECT_EQ(record.done->applied[0].steered_rows, 0u);
  record.done->applied.clear();
  EXPECT_EQ(Difference(record, RunAlone(TestRequest(1, 40, 6))), "");
}

TEST_P(PromptScope, FiredForGeneratedTokensOnlyComputesNothingTwice) {
  CoreHarness harness(TestOptions(), 64);
  int64_t rows = 0;
  harness.fake().on_forward = [&](const ForwardStep& step) {
    rows += static_cast<int64_t>(step.tables.token_ids.size());
    return Status::Ok();
  };
  SteeringParams gated = Gated(GetParam(), kAlways);
  gated.position_begin = 40;
  const RequestRecord& record = harness.Run(SteeredRequest(1, 40, 6, {gated}));
  EXPECT_EQ(rows, 45);
  EXPECT_EQ(record.done->applied[0].generated_tokens, 5u);
}

TEST_P(PromptScope, BlocksBeforeTheFirstSteeredTokenAreNotComputedAgain) {
  CoreHarness harness(TestOptions(), 64);
  int64_t rows = 0;
  harness.fake().on_forward = [&](const ForwardStep& step) {
    rows += static_cast<int64_t>(step.tables.token_ids.size());
    return Status::Ok();
  };
  SteeringParams gated = Gated(GetParam(), kAlways);
  gated.position_begin = 33;
  harness.Run(SteeredRequest(1, 40, 1, {gated}));
  EXPECT_EQ(rows, 40 + 8);  // from 32 on
}

TEST_P(PromptScope, TheDecisionIsOnTheStreamOfTheOtherSteerings) {
  // With thresholds all around, one in two fires; which ones depends on the ungated steering.
  const auto fired = [](const std::vector<SteeringParams>& before) {
    std::vector<uint64_t> outcomes;
    for (int step = -60; step <= 60; ++step) {
      std::vector<SteeringParams> steering = before;
      steering.push_back(Gated(GetParam(), 0.02f * static_cast<float>(step)));
      outcomes.push_back(
          RunAlone(SteeredRequest(1, 30, 2, steering)).done->applied.back().gate_fired);
    }
    return outcomes;
  };
  const std::vector<uint64_t> plain = fired({});
  const std::vector<uint64_t> steered = fired({TestSteering(3, {0})});
  EXPECT_EQ(plain.front(), 1u);
  EXPECT_EQ(plain.back(), 0u);
  EXPECT_NE(plain, steered);
}

TEST_P(PromptScope, CapturesScoresAndProbesAreOfTheDecidedPrompt) {
  for (const float threshold : {kNever, kAlways}) {
    SteeringParams gated = Gated(GetParam(), threshold);
    EngineRequest request = SteeredRequest(1, 40, 4, {gated});
    request.capture = CaptureParams{.sites = {CaptureSiteKind::kResidPost}, .layers = {1, 3}};
    request.prompt_logprobs_from = 3;
    request.probes = {{.vector = 3, .layer = 2}, {.vector = 3, .layer = 2}};
    request.probes[1].read = ProbeRead::kPromptLast;
    EngineRequest decided = request;
    decided.steering[0].gate.reset();
    if (threshold == kNever) decided.steering.clear();
    RequestRecord record = RunAlone(request);
    RequestRecord expected = RunAlone(decided);
    if (threshold == kNever) record.done->applied.clear();
    ExpectSameButForGates(record, expected);
  }
}

TEST_P(PromptScope, APreemptionInTheMiddleOfTheEvaluationChangesNothing) {
  for (const float threshold : {kNever, 0.0f, kAlways}) {
    for (const bool prefix_cache : {false, true}) {
      EngineOptions options = TestOptions();
      options.max_batch_tokens = 12;
      options.prefix_cache = prefix_cache;
      CoreHarness harness(options, 10);
      const EngineRequest older = TestRequest(1, 90, 60, 5);
      const EngineRequest gated = SteeredRequest(2, 60, 5, {Gated(GetParam(), threshold)});
      harness.Submit(older);
      for (int i = 0; i < 9; ++i) harness.Step();
      harness.Submit(gated);
      harness.Run();
      harness.ExpectIdle();
      EXPECT_EQ(Difference(harness.transcript().of(2), RunAlone(gated)), "");
      EXPECT_EQ(Difference(harness.transcript().of(1), RunAlone(older)), "");
    }
  }
}

TEST_P(PromptScope, APreemptedEvaluationGoesOn) {
  EngineOptions options = TestOptions();
  options.max_batch_tokens = 4;
  CoreHarness harness(options, 11);
  // The first grows into the blocks of the second while that is being evaluated.
  harness.Submit(TestRequest(1, 31, 60, 5));
  for (int i = 0; i < 9; ++i) harness.Step();
  const EngineRequest gated = SteeredRequest(2, 112, 3, {Gated(GetParam(), kAlways)});
  harness.Submit(gated);
  uint64_t preempted_while_evaluating = 0;
  while (harness.Step()) {
    if (harness.transcript().of(2).token_events == 0) {
      preempted_while_evaluating = harness.Stats().preemptions;
    }
  }
  EXPECT_GT(preempted_while_evaluating, 0u);
  EXPECT_EQ(Difference(harness.transcript().of(2), RunAlone(gated)), "");
  harness.ExpectIdle();
}

TEST_P(PromptScope, ADecisionIsKeptOverAPreemption) {
  for (const float threshold : {kNever, kAlways}) {
    EngineOptions options = TestOptions();
    options.max_batch_tokens = 32;
    CoreHarness harness(options, 7);
    const EngineRequest gated = SteeredRequest(2, 30, 40, {Gated(GetParam(), threshold)});
    harness.Submit(TestRequest(1, 30, 60, 5));
    harness.Submit(gated);
    harness.Run();
    EXPECT_GT(harness.Stats().preemptions, 0u);
    EXPECT_EQ(Difference(harness.transcript().of(2), RunAlone(gated)), "");
    EXPECT_EQ(harness.transcript().of(2).done->applied[0].gate_evaluations, 1u);
  }
}

TEST_P(PromptScope, AScoredContinuationIsNoPartOfThePrompt) {
  for (int step = -5; step <= 5; ++step) {
    SteeringParams gated = Gated(GetParam(), 0.2f * static_cast<float>(step));
    gated.gate->prompt_tokens = 20;
    const uint64_t whole = RunAlone(SteeredRequest(1, 50, 0, {gated})).done->applied[0].gate_fired;
    EngineRequest prompt_only = SteeredRequest(1, 50, 1, {gated});
    prompt_only.prompt_token_ids.resize(20);
    EXPECT_EQ(RunAlone(prompt_only).done->applied[0].gate_fired, whole);
  }
}

TEST_P(PromptScope, KeysOfADecidedGateAreThoseOfNone) {
  CoreHarness harness(TestOptions(), 128);
  SteeringParams ungated = Gated(GetParam(), kAlways);
  ungated.gate.reset();
  harness.Run(SteeredRequest(1, 64, 2, {Gated(GetParam(), kAlways)}));
  EXPECT_EQ(harness.Run(SteeredRequest(2, 64, 2, {ungated})).done->cached_prompt_tokens, 48u);
  EXPECT_EQ(harness.Run(TestRequest(3, 64, 2)).done->cached_prompt_tokens, 48u);
}

TEST(CoreGate, ACosineOfZerosAndLayersBeforeTheGateAreRefused) {
  CoreHarness harness(TestOptions(), 64);
  VectorRows zero = TestVector(TestOptions().config, 50);
  for (std::vector<float>& row : zero.rows) row.assign(row.size(), 0.0f);
  harness.core().PutVector(zero);
  SteeringParams cosine = Gated(GateScope::kEachToken, 0.0f);
  cosine.gate->vector = 50;
  cosine.gate->metric = GateMetric::kCosine;
  const auto refusal = [&](RequestId id, const SteeringParams& steering) {
    const Status& status = harness.Run(SteeredRequest(id, 20, 4, {steering})).done->status;
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(refusal(1, cosine).starts_with("steering[0].gate: "));
  EXPECT_TRUE(
      refusal(2, Gated(GateScope::kEachToken, 0.0f, {0, 2})).starts_with("steering[0].layers: "));
  SteeringParams outside = Gated(GateScope::kPromptMean, 0.0f);
  outside.gate->layer = kTestLayers;
  EXPECT_TRUE(refusal(3, outside).starts_with("steering[0].gate.layer: "));
  SteeringParams longer = Gated(GateScope::kPromptMean, 0.0f);
  longer.gate->prompt_tokens = 21;
  EXPECT_TRUE(refusal(4, longer).starts_with("steering[0].gate: "));
  SteeringParams unknown = Gated(GateScope::kPromptMean, 0.0f);
  unknown.gate->vector = 99;
  EXPECT_EQ(harness.Run(SteeredRequest(5, 20, 4, {unknown})).done->status.code(),
            StatusCode::kNotFound);
  // On the prompt any block may be read.
  EXPECT_TRUE(harness.Run(SteeredRequest(6, 20, 4, {Gated(GateScope::kPromptMean, 0.0f, {0})}))
                  .done->status.ok());
}

TEST(CoreGate, AScoreThatIsNotFiniteEndsItsRequestOnly) {
  CoreHarness harness(TestOptions(), 64);
  const EngineRequest good = TestRequest(1, 20, 8, 9);
  EngineRequest bad = SteeredRequest(2, 20, 8, {Gated(GateScope::kEachToken, 0.0f)});
  bad.prompt_token_ids[11] = 999;  // beyond what TestRequest makes
  harness.fake().nan_token = 999;
  harness.Submit(good);
  harness.Submit(bad);
  harness.Run();
  const RequestRecord& record = harness.transcript().of(2);
  EXPECT_EQ(record.done->status.code(), StatusCode::kInternal);
  EXPECT_NE(record.done->status.message().find("position 11"), std::string::npos);
  EXPECT_EQ(record.token_events, 0);
  EXPECT_EQ(Difference(harness.transcript().of(1), RunAlone(good)), "");
  harness.ExpectIdle();
}

TEST(CoreGate, FailsClosedWhenADeviceIgnoresGates) {
  CoreHarness harness(TestOptions(), 64);
  harness.fake().on_forward = [](const ForwardStep& step) {
    // The kernel neither evaluates gates nor sees that an operation has one.
    auto* tables = const_cast<SteerTables*>(step.steering);
    if (tables == nullptr) return Status::Ok();
    tables->gates = {};
    for (const SteerOp& op : tables->ops) const_cast<SteerOp&>(op).gated = false;
    return Status::Ok();
  };
  const RequestRecord& record =
      harness.Run(SteeredRequest(1, 20, 4, {Gated(GateScope::kEachToken, 0.0f)}));
  EXPECT_EQ(record.done->status.code(), StatusCode::kInternal);
  EXPECT_EQ(record.token_events, 0);
}

}  // namespace
}  // namespace llama_steer
