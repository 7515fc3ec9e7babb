// after_text: steering and capture after a text, in prompt and completion.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

const EngineOptions kOptions = TestOptions();

EngineRequest After(RequestId id, int32_t prompt, uint32_t new_tokens, std::vector<uint8_t> text,
                    int32_t begin = 0, int32_t end = kOpenEnd) {
  EngineRequest request = TestRequest(id, prompt, new_tokens);
  SteeringParams steering = TestSteering(1, {1}, begin, end);
  steering.after_text = std::move(text);
  request.steering = {steering};
  return request;
}

/// The text of tokens [first, last] of the prompt, long enough to stand there only.
std::vector<uint8_t> PromptText(const EngineRequest& request, size_t first, size_t last) {
  return TextOf(kOptions, std::span(request.prompt_token_ids).subspan(first, last - first + 1));
}

TEST(CoreText, AfterATextInThePromptIsARangeFromTheNextToken) {
  const EngineRequest plain = TestRequest(1, 40, 6);
  const EngineRequest after = After(1, 40, 6, PromptText(plain, 5, 20));
  EngineRequest range = plain;
  range.steering = {TestSteering(1, {1}, 21)};
  const RequestRecord record = RunAlone(after);
  EXPECT_EQ(record.done->applied[0].prompt_tokens, 19u);
  EXPECT_EQ(record.done->applied[0].first_positions, std::vector<int32_t>{21});
  EXPECT_EQ(Difference(record, RunAlone(range)), "");
}

TEST(CoreText, TheRangeOfTheSteeringHoldsToo) {
  const std::vector<uint8_t> text = PromptText(TestRequest(1, 40, 6), 5, 20);
  const RequestRecord later = RunAlone(After(1, 40, 6, text, 30, 35));
  EXPECT_EQ(later.done->applied[0].prompt_tokens, 5u);
  EXPECT_EQ(later.done->applied[0].first_positions, std::vector<int32_t>{30});
  const RequestRecord cut = RunAlone(After(1, 40, 6, text, 10, 24));
  EXPECT_EQ(cut.done->applied[0].prompt_tokens, 3u);
  EXPECT_EQ(cut.done->applied[0].first_positions, std::vector<int32_t>{21});
}

TEST(CoreText, ATextMayBeginInThePromptAndEndInTheCompletion) {
  const RequestRecord plain = RunAlone(TestRequest(1, 20, 12));
  const EngineRequest request = TestRequest(1, 20, 12);
  std::vector<uint32_t> tokens(request.prompt_token_ids.begin() + 8,
                               request.prompt_token_ids.end());
  for (size_t i = 0; i < 3; ++i) tokens.push_back(plain.tokens.at(0)[i].token_id);
  const RequestRecord record = RunAlone(After(1, 20, 12, TextOf(kOptions, tokens)));
  // The third generated token, at position 22, completes it.
  EXPECT_EQ(record.done->applied[0].prompt_tokens, 0u);
  EXPECT_EQ(record.done->applied[0].first_positions, std::vector<int32_t>{23});
  EXPECT_EQ(record.done->applied[0].generated_tokens, 8u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(record.tokens.at(0)[i].logprob, plain.tokens.at(0)[i].logprob);
  }
  EXPECT_NE(record.tokens.at(0)[4].logprob, plain.tokens.at(0)[4].logprob);
}

TEST(CoreText, EachCompletionFindsItsOwn) {
  EngineRequest request = After(1, 20, 30, Bytes("abca"));
  request.completions = 4;
  request.sampling.temperature = 1.0f;
  CoreHarness harness(kOptions, 128);
  const RequestRecord& record = harness.Run(request);
  const std::vector<int32_t>& firsts = record.done->applied[0].first_positions;
  ASSERT_EQ(firsts.size(), 4u);
  std::vector<int32_t> expected;
  for (const auto& [completion, tokens] : record.tokens) {
    std::vector<uint32_t> ids = request.prompt_token_ids;
    int32_t first = -1;
    for (const ScoredToken& token : tokens) {
      ids.push_back(token.token_id);
      const std::vector<uint8_t> text = TextOf(kOptions, ids);
      const std::string all(text.begin(), text.end());
      if (all.find("abca") == std::string::npos) continue;
      first = static_cast<int32_t>(ids.size());
      break;
    }
    expected.push_back(first);
  }
  EXPECT_EQ(firsts, expected);
  EXPECT_NE(std::ranges::count(firsts, -1), 4);
  EXPECT_EQ(Difference(record, RunAlone(request)), "");
}

TEST(CoreText, ATextThatDoesNotAppearActsOnNothingAndTheProofSaysSo) {
  RequestRecord record = RunAlone(After(1, 20, 6, Bytes("nowhere")));
  EXPECT_TRUE(record.done->status.ok());
  EXPECT_EQ(record.done->applied[0].steered_rows, 0u);
  EXPECT_EQ(record.done->applied[0].first_positions, std::vector<int32_t>{-1});
  record.done->applied.clear();
  EXPECT_EQ(Difference(record, RunAlone(TestRequest(1, 20, 6))), "");
}

TEST(CoreText, APrefillWithoutTheTextIsRefused) {
  CoreHarness harness(kOptions, 64);
  const auto refusal = [&](const EngineRequest& request) {
    const Status& status = harness.Run(request).done->status;
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(
      refusal(After(1, 20, 0, Bytes("nowhere"))).starts_with("steering[0].positions.after_text: "));
  const EngineRequest plain = TestRequest(2, 20, 0);
  EXPECT_TRUE(refusal(After(2, 20, 0, PromptText(plain, 3, 19)))
                  .starts_with("steering[0].positions.after_text: "));  // no token follows
  EngineRequest capturing = TestRequest(3, 20, 0);
  capturing.capture = CaptureParams{.sites = {CaptureSiteKind::kResidPost}, .layers = {0}};
  capturing.capture->after_text = Bytes("nowhere");
  EXPECT_TRUE(refusal(capturing).starts_with("capture.tokens.after_text: "));
  EngineRequest probing = TestRequest(4, 20, 0);
  probing.probes = {{.vector = 1, .read = ProbeRead::kAfterText, .after_text = Bytes("nowhere")}};
  EXPECT_TRUE(refusal(probing).starts_with("probes[0].after_text: "));
}

TEST(CoreText, NeedsTheTextsOfTokens) {
  EngineOptions options = kOptions;
  options.token_bytes.clear();
  options.token_offsets.clear();
  CoreHarness harness(options, 64);
  EXPECT_EQ(harness.Run(After(1, 20, 4, Bytes("a"))).done->status.code(),
            StatusCode::kFailedPrecondition);
  EXPECT_TRUE(harness.Run(TestRequest(2, 20, 4)).done->status.ok());
}

TEST(CoreText, BlocksBeforeTheTextEndsAreShared) {
  CoreHarness harness(kOptions, 64);
  harness.Run(TestRequest(1, 64, 2));
  const EngineRequest after = After(2, 64, 2, PromptText(TestRequest(2, 64, 2), 20, 38));
  EXPECT_EQ(harness.Run(after).done->cached_prompt_tokens, 32u);
  EXPECT_EQ(Difference(harness.transcript().of(2), RunAlone(after)), "");
}

EngineRequest CapturingAfter(RequestId id, int32_t prompt, uint32_t new_tokens,
                             std::vector<uint8_t> text) {
  EngineRequest request = TestRequest(id, prompt, new_tokens);
  request.capture = CaptureParams{.sites = {CaptureSiteKind::kResidPost}, .layers = {1}};
  request.capture->after_text = std::move(text);
  return request;
}

TEST(CoreText, CapturesWhatComesAfterTheText) {
  const EngineRequest plain = TestRequest(1, 40, 4);
  const EngineRequest request = CapturingAfter(1, 40, 4, PromptText(plain, 5, 34));
  const RequestRecord record = RunAlone(request);
  const CapturedSite& site = record.captures.begin()->second;
  EXPECT_EQ(site.positions, (std::vector<int32_t>{35, 36, 37, 38, 39, 40, 41, 42}));
  EngineRequest range = request;
  range.capture->after_text.clear();
  range.capture->position_begin = 35;
  EXPECT_EQ(Difference(record, RunAlone(range)), "");
}

TEST(CoreText, CapturesAfterATextThatIsGenerated) {
  const RequestRecord plain = RunAlone(TestRequest(1, 20, 10));
  EngineRequest request = TestRequest(1, 20, 10);
  std::vector<uint32_t> tokens = request.prompt_token_ids;
  for (size_t i = 0; i < 4; ++i) tokens.push_back(plain.tokens.at(0)[i].token_id);
  const std::vector<uint8_t> text = TextOf(kOptions, tokens);
  const RequestRecord record = RunAlone(CapturingAfter(1, 20, 10, text));
  EXPECT_EQ(record.captures.begin()->second.positions, (std::vector<int32_t>{24, 25, 26, 27, 28}));
  request = CapturingAfter(1, 20, 10, text);
  request.capture->mean = true;
  const RequestRecord mean = RunAlone(request);
  EXPECT_EQ(mean.captures.begin()->second.positions, (std::vector<int32_t>{24, 28}));
  EXPECT_TRUE(RunAlone(CapturingAfter(1, 20, 10, Bytes("nowhere"))).captures.empty());
}

}  // namespace
}  // namespace llama_steer
