// Steering: what acts on what, what the proof says, and what shares the prefix cache.
#include <gtest/gtest.h>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

constexpr int32_t kLastLayer = kTestLayers - 1;

TEST(CoreSteering, TheProofCountsPromptAndGeneratedTokens) {
  const RequestRecord record = RunAlone(SteeredRequest(1, 20, 5, {TestSteering(1, {0, 2})}));
  ASSERT_EQ(record.done->applied.size(), 1u);
  const AppliedSteeringReport& proof = record.done->applied[0];
  EXPECT_EQ(proof.prompt_tokens, 20u);
  EXPECT_EQ(proof.generated_tokens, 4u);  // the last token is not fed back
  EXPECT_EQ(proof.steered_rows, 48u);
  EXPECT_GT(proof.mean_delta_ratio, 0.0);
}

TEST(CoreSteering, TheProofCountsTheGeneratedTokensOfAllCompletions) {
  EngineRequest request =
      SteeredRequest(1, 20, 5, {TestSteering(1, {0}, 20), TestSteering(2, {1}, 5, 7)});
  request.completions = 3;
  const RequestRecord record = RunAlone(request);
  EXPECT_EQ(record.done->applied[0].prompt_tokens, 0u);
  EXPECT_EQ(record.done->applied[0].generated_tokens, 12u);
  EXPECT_EQ(record.done->applied[1].prompt_tokens, 2u);
  EXPECT_EQ(record.done->applied[1].generated_tokens, 0u);
}

TEST(CoreSteering, OnlyTokensInTheRangeAreChanged) {
  const RequestRecord plain = RunAlone(TestRequest(1, 20, 6));
  const RequestRecord generated = RunAlone(SteeredRequest(1, 20, 6, {TestSteering(1, {0}, 20)}));
  // The first generated token is decided by the last prompt token.
  EXPECT_EQ(plain.tokens.at(0)[0].token_id, generated.tokens.at(0)[0].token_id);
  EXPECT_NE(plain.tokens.at(0)[1].logprob, generated.tokens.at(0)[1].logprob);
}

TEST(CoreSteering, ACoefficientOfZeroIsUnsteeredButProven) {
  SteeringParams zero = TestSteering(1, {0, kLastLayer});
  zero.coefficient = 0.0f;
  const RequestRecord plain = RunAlone(TestRequest(1, 20, 6));
  RequestRecord steered = RunAlone(SteeredRequest(1, 20, 6, {zero}));
  EXPECT_EQ(steered.done->applied[0].steered_rows, 50u);
  EXPECT_EQ(steered.done->applied[0].mean_delta_ratio, 0.0);
  steered.done->applied.clear();
  EXPECT_EQ(Difference(plain, steered), "");
}

TEST(CoreSteering, UnknownVectorsAndLayersAreRefused) {
  CoreHarness harness(TestOptions(), 64);
  EXPECT_EQ(harness.Run(SteeredRequest(1, 20, 5, {TestSteering(99, {0})})).done->status.code(),
            StatusCode::kNotFound);
  VectorRows partial = TestVector(TestOptions().config, 50);
  partial.layers = {1};
  partial.rows.resize(1);
  harness.core().PutVector(partial);
  EXPECT_EQ(harness.Run(SteeredRequest(2, 20, 5, {TestSteering(50, {0})})).done->status.code(),
            StatusCode::kInvalidArgument);
  EXPECT_TRUE(harness.Run(SteeredRequest(3, 20, 5, {TestSteering(50, {1})})).done->status.ok());
}

TEST(CoreSteering, ARequestKeepsTheVectorItBeganWith) {
  CoreHarness harness(TestOptions(), 64);
  const EngineRequest request = SteeredRequest(1, 20, 10, {TestSteering(1, {0, 1})});
  harness.Submit(request);
  harness.Step();
  harness.core().DropVector(1);
  EXPECT_EQ(harness.fake().vector_rows(), kTestVectors * kTestLayers);
  EXPECT_EQ(harness.Run(SteeredRequest(2, 20, 5, {TestSteering(1, {0})})).done->status.code(),
            StatusCode::kNotFound);
  harness.Run();
  EXPECT_EQ(Difference(harness.transcript().of(1), RunAlone(request)), "");
  EXPECT_EQ(harness.fake().vector_rows(), (kTestVectors - 1) * kTestLayers);
  EXPECT_EQ(harness.Stats().resident_vectors, static_cast<uint32_t>(kTestVectors - 1));
  EXPECT_EQ(harness.Stats().resident_vector_bytes, (kTestVectors - 1) * kTestLayers * 8u * 4u);
}

/// Runs `first`, then `second` on the warm cache; returns the prompt tokens that `second` reused.
uint32_t ReusedAfter(const EngineRequest& first, EngineRequest second) {
  CoreHarness harness(TestOptions(), 128);
  harness.Run(first);
  second.id = 2;
  const RequestRecord& record = harness.Run(second);
  EXPECT_EQ(Difference(record, RunAlone(second)), "");
  harness.ExpectIdle();
  return record.done->cached_prompt_tokens;
}

TEST(CoreSteering, SteeringOfGeneratedTokensSharesThePromptsBlocks) {
  const EngineRequest plain = TestRequest(1, 64, 4);
  const EngineRequest generated = SteeredRequest(1, 64, 4, {TestSteering(1, {0}, 64)});
  EXPECT_EQ(ReusedAfter(plain, generated), 48u);
  EXPECT_EQ(ReusedAfter(generated, plain), 48u);
}

TEST(CoreSteering, BlocksBeforeTheFirstSteeredTokenAreShared) {
  const EngineRequest plain = TestRequest(1, 64, 4);
  EXPECT_EQ(ReusedAfter(plain, SteeredRequest(1, 64, 4, {TestSteering(1, {0}, 40)})), 32u);
  EXPECT_EQ(ReusedAfter(plain, SteeredRequest(1, 64, 4, {TestSteering(1, {0})})), 0u);
}

TEST(CoreSteering, PromptAndAllShareTheBlocksThatBothCover) {
  const EngineRequest prompt = SteeredRequest(1, 70, 4, {TestSteering(1, {0}, 0, 70)});
  const EngineRequest all = SteeredRequest(1, 70, 4, {TestSteering(1, {0})});
  EXPECT_EQ(ReusedAfter(prompt, all), 64u);
  EXPECT_EQ(ReusedAfter(all, prompt), 64u);
}

TEST(CoreSteering, OtherCoefficientsAndVectorsShareNothing) {
  SteeringParams strong = TestSteering(1, {0});
  strong.coefficient = 2.0f;
  const EngineRequest base = SteeredRequest(1, 64, 4, {TestSteering(1, {0})});
  EXPECT_EQ(ReusedAfter(base, SteeredRequest(1, 64, 4, {strong})), 0u);
  EXPECT_EQ(ReusedAfter(base, SteeredRequest(1, 64, 4, {TestSteering(2, {0})})), 0u);
  EXPECT_EQ(ReusedAfter(base, base), 48u);
}

TEST(CoreSteering, ABlockWithoutTheProofOfALastLayerSteeringIsComputedAgain) {
  const EngineRequest plain = TestRequest(1, 64, 4);
  const EngineRequest last = SteeredRequest(1, 64, 4, {TestSteering(1, {kLastLayer})});
  EXPECT_EQ(ReusedAfter(plain, last), 0u);   // nobody has proven it yet
  EXPECT_EQ(ReusedAfter(last, plain), 48u);  // the keys and values are the same
  EXPECT_EQ(ReusedAfter(last, last), 48u);
  CoreHarness harness(TestOptions(), 128);
  harness.Run(plain);
  EngineRequest second = last;
  second.id = 2;
  harness.Run(second);  // adds its proof to the blocks that are there
  EngineRequest third = last;
  third.id = 3;
  EXPECT_EQ(harness.Run(third).done->cached_prompt_tokens, 48u);
  EXPECT_EQ(Difference(harness.transcript().of(3), RunAlone(last)), "");
}

TEST(CoreSteering, TheSameEntriesInAnotherOrderAreProvenAnew) {
  const SteeringParams a = TestSteering(1, {kLastLayer});
  const SteeringParams b = TestSteering(2, {kLastLayer});
  EXPECT_EQ(ReusedAfter(SteeredRequest(1, 64, 4, {a, b}), SteeredRequest(1, 64, 4, {b, a})), 0u);
  EXPECT_EQ(ReusedAfter(SteeredRequest(1, 64, 4, {a, b}), SteeredRequest(1, 64, 4, {a})), 0u);
}

TEST(CoreSteering, TheBlocksOfEveryCompletionAreCachedWithTheirProof) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request =
      SteeredRequest(1, 20, 40, {TestSteering(1, {0}), TestSteering(2, {kLastLayer})});
  request.completions = 3;
  const RequestRecord first = harness.Run(request);
  for (const auto& [completion, tokens] : first.tokens) {
    EngineRequest next = SteeredRequest(2 + completion, 20, 4, request.steering);
    for (const ScoredToken& token : tokens) next.prompt_token_ids.push_back(token.token_id);
    const RequestRecord& second = harness.Run(next);
    EXPECT_EQ(second.done->cached_prompt_tokens, 48u);
    EXPECT_EQ(Difference(second, RunAlone(next)), "");
  }
  harness.ExpectIdle();
}

TEST(CoreSteering, FailsClosedWhenTheKernelMissesAToken) {
  EngineOptions options = TestOptions();
  CoreHarness harness(options, 64);
  harness.fake().on_forward = [](const ForwardStep& step) {
    if (step.steering == nullptr) return Status::Ok();
    // The kernel reports one layer less for one token of the prompt.
    step.steering->proof[5 * step.steering->proof_stride].layers_acted = UINT32_MAX;
    return Status::Ok();
  };
  const RequestRecord& record = harness.Run(SteeredRequest(1, 20, 5, {TestSteering(1, {0, 1})}));
  EXPECT_EQ(record.done->status.code(), StatusCode::kInternal);
  EXPECT_EQ(record.token_events, 0);
  EXPECT_NE(record.done->status.message().find("position 5"), std::string::npos);
  harness.ExpectIdle();
}

TEST(CoreSteering, ARangeThatCannotBeReachedIsRefused) {
  CoreHarness harness(TestOptions(), 64);
  const auto code = [&](RequestId id, uint32_t new_tokens, int32_t begin) {
    return harness.Run(SteeredRequest(id, 20, new_tokens, {TestSteering(1, {0}, begin)}))
        .done->status.code();
  };
  EXPECT_EQ(code(1, 0, 20), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(2, 1, 20), StatusCode::kInvalidArgument);  // the only token is not fed back
  EXPECT_EQ(code(3, 2, 20), StatusCode::kOk);
  EXPECT_EQ(code(4, 5, 24), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(5, 5, 23), StatusCode::kOk);
}

TEST(CoreSteering, ARangeThatWasNotReachedIsNoFailure) {
  EngineRequest request = SteeredRequest(1, 20, 10, {TestSteering(1, {0}, 25)});
  request.sampling.stop_token_ids = {RunAlone(request).tokens.at(0)[1].token_id};
  const RequestRecord record = RunAlone(request);
  EXPECT_TRUE(record.done->status.ok());
  EXPECT_EQ(record.done->applied[0].steered_rows, 0u);
}

TEST(CoreSteering, TokensOfAScoredContinuationCountAsGenerated) {
  for (const bool prefix_cache : {false, true}) {
    EngineOptions options = TestOptions();
    options.prefix_cache = prefix_cache;
    CoreHarness harness(options, 64);
    EngineRequest request = TestRequest(1, 50, 0);
    request.steering = {TestSteering(1, {1}), TestSteering(2, {0, 2}, 45)};
    request.proof_prompt_tokens = 40;
    for (int round = 0; round < 2; ++round, ++request.id) {
      const DoneEvent done = *harness.Run(request).done;
      EXPECT_EQ(done.applied[0].prompt_tokens, 40u);
      EXPECT_EQ(done.applied[0].generated_tokens, 10u);
      EXPECT_EQ(done.applied[1].prompt_tokens, 0u);
      EXPECT_EQ(done.applied[1].generated_tokens, 5u);
      EXPECT_EQ(done.applied[1].steered_rows, 10u);
    }
  }
}

}  // namespace
}  // namespace llama_steer
