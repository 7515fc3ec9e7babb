#include <gtest/gtest.h>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

const EngineOptions kOptions = TestOptions();

EngineRequest Probing(RequestId id, int32_t prompt, uint32_t new_tokens, ProbeRead read,
                      std::vector<uint8_t> text = {}) {
  EngineRequest request = TestRequest(id, prompt, new_tokens);
  request.probes = {{.vector = 2, .layer = 1, .read = read, .after_text = std::move(text)}};
  return request;
}

TEST(CoreProbe, EachTokenIsReadWhereItsLogitsAre) {
  const RequestRecord record = RunAlone(Probing(1, 20, 5, ProbeRead::kEachToken));
  EXPECT_EQ(record.probes.at({-1, 0}).positions, std::vector<int32_t>{19});
  EXPECT_EQ(record.probes.at({0, 0}).positions, (std::vector<int32_t>{20, 21, 22, 23}));
}

TEST(CoreProbe, CompletionsShareTheScoreOfThePrompt) {
  EngineRequest request = Probing(1, 20, 5, ProbeRead::kEachToken);
  request.completions = 3;
  const RequestRecord alone = RunAlone(request);
  for (const uint32_t credits : {1u << 20, 2u}) {  // with few, completions begin later
    request.credits = credits;
    CoreHarness harness(kOptions, 64);
    harness.Submit(request);
    for (int i = 0; i < 40; ++i) {
      harness.Run();
      harness.core().Grant(1, 1, 0);
    }
    const RequestRecord& record = harness.transcript().of(1);
    EXPECT_EQ(record.probes.at({-1, 0}).positions, std::vector<int32_t>{19});
    for (const int32_t completion : {0, 1, 2}) {
      EXPECT_EQ(record.probes.at({completion, 0}).positions.size(), 4u);
    }
    EXPECT_EQ(Difference(record, alone), "");
    harness.ExpectIdle();
  }
}

TEST(CoreProbe, ThePromptsLastTokenIsReadOnceAndWithoutGeneratingToo) {
  for (const uint32_t new_tokens : {0u, 5u}) {
    const RequestRecord record = RunAlone(Probing(1, 20, new_tokens, ProbeRead::kPromptLast));
    EXPECT_EQ(record.probes.size(), 1u);
    EXPECT_EQ(record.probes.at({-1, 0}).positions, std::vector<int32_t>{19});
  }
}

TEST(CoreProbe, AfterATextTheTokenThatCompletesItIsRead) {
  const EngineRequest plain = TestRequest(1, 40, 8);
  const std::vector<uint8_t> in_prompt =
      TextOf(kOptions, std::span(plain.prompt_token_ids).subspan(3, 20));
  RequestRecord record = RunAlone(Probing(1, 40, 8, ProbeRead::kAfterText, in_prompt));
  EXPECT_EQ(record.probes.at({-1, 0}).positions, std::vector<int32_t>{22});
  EXPECT_EQ(record.probes.size(), 1u);

  const RequestRecord generated = RunAlone(plain);
  std::vector<uint32_t> tokens = plain.prompt_token_ids;
  for (size_t i = 0; i < 3; ++i) tokens.push_back(generated.tokens.at(0)[i].token_id);
  record = RunAlone(Probing(1, 40, 8, ProbeRead::kAfterText, TextOf(kOptions, tokens)));
  EXPECT_EQ(record.probes.at({0, 0}).positions, std::vector<int32_t>{42});
  EXPECT_EQ(record.probes.size(), 1u);

  EXPECT_TRUE(RunAlone(Probing(1, 40, 8, ProbeRead::kAfterText, Bytes("nowhere"))).probes.empty());
}

TEST(CoreProbe, ReadsTheSteeredStream) {
  EngineRequest request = Probing(1, 20, 1, ProbeRead::kPromptLast);
  const RequestRecord plain = RunAlone(request);
  request.steering = {TestSteering(1, {1})};
  EXPECT_NE(RunAlone(request).probes.at({-1, 0}).scores, plain.probes.at({-1, 0}).scores);
  // Neither the block that is read nor what its attention reads.
  request.steering = {TestSteering(1, {kTestLayers - 1})};
  EXPECT_EQ(RunAlone(request).probes.at({-1, 0}).scores, plain.probes.at({-1, 0}).scores);
}

TEST(CoreProbe, PositionsInCachedBlocksAreComputedAgain) {
  CoreHarness harness(kOptions, 64);
  const EngineRequest plain = TestRequest(1, 70, 3);
  harness.Run(plain);
  const std::vector<uint8_t> text =
      TextOf(kOptions, std::span(plain.prompt_token_ids).subspan(10, 30));
  const EngineRequest probing = Probing(2, 70, 3, ProbeRead::kAfterText, text);
  const RequestRecord& record = harness.Run(probing);
  EXPECT_EQ(record.done->cached_prompt_tokens, 32u);  // the token stands at 39
  EXPECT_EQ(Difference(record, RunAlone(probing)), "");
  const EngineRequest each = Probing(3, 70, 3, ProbeRead::kEachToken);
  EXPECT_EQ(harness.Run(each).done->cached_prompt_tokens, 64u);
  EXPECT_EQ(Difference(harness.transcript().of(3), RunAlone(each)), "");
}

TEST(CoreProbe, WrongProbesAreRefused) {
  CoreHarness harness(kOptions, 64);
  const auto code = [&](RequestId id, auto change) {
    EngineRequest request = Probing(id, 20, 3, ProbeRead::kEachToken);
    change(request.probes);
    return harness.Run(request).done->status.code();
  };
  EXPECT_EQ(code(1, [](auto& probes) { probes[0].layer = kTestLayers; }),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code(2, [](auto& probes) { probes[0].vector = 99; }), StatusCode::kNotFound);
  EXPECT_EQ(code(3, [](auto& probes) { probes[0].after_text = {65}; }),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code(4, [](auto& probes) { probes[0].read = ProbeRead::kAfterText; }),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code(5, [](auto& probes) { probes.resize(kMaxProbesPerRequest + 1, probes[0]); }),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code(6, [](auto& probes) { probes.resize(kMaxProbesPerRequest, probes[0]); }),
            StatusCode::kOk);
}

TEST(CoreProbe, AScoreThatIsNotFiniteEndsItsRequestOnly) {
  CoreHarness harness(kOptions, 64);
  harness.fake().nan_token = 999;
  EngineRequest bad = Probing(1, 20, 4, ProbeRead::kPromptLast);
  bad.prompt_token_ids[19] = 999;
  const EngineRequest good = Probing(2, 20, 4, ProbeRead::kEachToken);
  harness.Submit(bad);
  harness.Submit(good);
  harness.Run();
  EXPECT_EQ(harness.transcript().of(1).done->status.code(), StatusCode::kInternal);
  EXPECT_EQ(harness.transcript().of(1).token_events, 0);
  EXPECT_EQ(Difference(harness.transcript().of(2), RunAlone(good)), "");
  harness.ExpectIdle();
}

TEST(CoreProbe, AVectorThatAProbeReadsStaysUntilItsRequestHasEnded) {
  CoreHarness harness(kOptions, 64);
  const EngineRequest request = Probing(1, 20, 10, ProbeRead::kEachToken);
  harness.Submit(request);
  harness.Step();
  harness.core().DropVector(2);
  harness.Run();
  EXPECT_EQ(Difference(harness.transcript().of(1), RunAlone(request)), "");
  EXPECT_EQ(harness.fake().vector_rows(), (kTestVectors - 1) * kTestLayers);
}

}  // namespace
}  // namespace llama_steer
