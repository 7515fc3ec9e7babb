#include "engine/admission.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

const RequestLimits kLimits = {.layers = 4,
                               .vocab_size = 1000,
                               .context_tokens = 100,
                               .kv_blocks = 5,
                               .kv_block_tokens = 16,
                               .max_completions = 8,
                               .max_steerings = 2};

Status Check(const std::function<void(EngineRequest&)>& change) {
  EngineRequest request = TestRequest(1, 20, 10);
  change(request);
  return CheckRequest(request, kLimits);
}

void ExpectRefused(const std::function<void(EngineRequest&)>& change, const std::string& words) {
  const Status status = Check(change);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << words;
  EXPECT_NE(status.message().find(words), std::string::npos) << status.message();
}

TEST(Admission, TakesWhatFits) {
  EXPECT_TRUE(Check([](auto&) {}).ok());
  EXPECT_TRUE(Check([](auto& r) { r.max_new_tokens = 61; }).ok());  // 80 positions: five blocks
}

TEST(Admission, NamesBothNumbersOfWhatDoesNotFit) {
  ExpectRefused([](auto& r) { r.max_new_tokens = 62; }, "needs 6 KV blocks, the cache has 5");
  ExpectRefused([](auto& r) { r.max_new_tokens = 81; }, "101 tokens, the context holds 100");
  ExpectRefused([](auto& r) { r.max_new_tokens = UINT32_MAX; }, "the context holds 100");
  ExpectRefused([](auto& r) { r.completions = 9; }, "[1, 8]");
  ExpectRefused([](auto& r) { r.completions = 0; }, "[1, 8]");
  ExpectRefused([](auto& r) { r.steering.assign(3, TestSteering(1, {0})); }, "may have 2");
}

TEST(Admission, RefusesBadTokens) {
  ExpectRefused([](auto& r) { r.prompt_token_ids.clear(); }, "empty");
  ExpectRefused([](auto& r) { r.prompt_token_ids[3] = 1000; }, "token 3 is 1000");
  ExpectRefused([](auto& r) { r.prompt_logprobs_from = 0; }, "[1, 20]");
  ExpectRefused([](auto& r) { r.prompt_logprobs_from = 21; }, "[1, 20]");
}

TEST(Admission, RefusesBadSamplingNumbers) {
  ExpectRefused([](auto& r) { r.sampling.temperature = -1.0f; }, "temperature");
  ExpectRefused([](auto& r) { r.sampling.temperature = NAN; }, "temperature");
  ExpectRefused([](auto& r) { r.sampling.top_p = 0.0f; }, "top_p");
  ExpectRefused([](auto& r) { r.sampling.top_p = NAN; }, "top_p");
  ExpectRefused([](auto& r) { r.sampling.min_p = 1.5f; }, "min_p");
  ExpectRefused([](auto& r) { r.sampling.repetition_penalty = 0.0f; }, "repetition_penalty");
  ExpectRefused([](auto& r) { r.sampling.presence_penalty = INFINITY; }, "presence_penalty");
  ExpectRefused([](auto& r) { r.sampling.top_logprobs = 1001; }, "top logprobs");
  ExpectRefused([](auto& r) { r.sampling.logit_bias = {{.token_id = 1000, .bias = 1.0f}}; },
                "logit bias");
  ExpectRefused([](auto& r) { r.sampling.logit_bias = {{.token_id = 1, .bias = NAN}}; },
                "logit bias");
}

TEST(Admission, RefusesBadSteering) {
  const auto refused = [](const std::function<void(SteeringParams&)>& change,
                          const std::string& words) {
    ExpectRefused(
        [&](EngineRequest& request) {
          request.steering = {TestSteering(1, {0, 1})};
          change(request.steering[0]);
        },
        words);
  };
  refused([](auto& s) { s.coefficient = NAN; }, "coefficient");
  refused([](auto& s) { s.layers.clear(); }, "no layer");
  refused([](auto& s) { s.layers = {4}; }, "outside the model's 4");
  refused([](auto& s) { s.layers = {1, 1}; }, "ascend");
  refused([](auto& s) { s.position_begin = -1; }, "hold no token");
  refused([](auto& s) { s.position_end = 0; }, "hold no token");
  refused([](auto& s) { s.position_begin = 29; }, "below 29");
  refused(
      [](auto& s) {
        s.kind = SteerKind::kClamp;
        s.clamp_min = 1.0f;
      },
      "clamp_min");
}

}  // namespace
}  // namespace llama_steer
