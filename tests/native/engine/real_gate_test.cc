// Gates, probes and comparison on a real model, against what its captured rows and its logprobs
// say.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "engine/core_harness.h"
#include "engine/llama_runner.h"
#include "engine/tiny_checkpoint.h"

namespace llama_steer {
namespace {

class RealGate : public testing::Test {
 protected:
  RequestRecord Run(const EngineRequest& request) const {
    EngineOptions options;
    options.config = checkpoint_.config();
    options.checkpoint = checkpoint_.files();
    options.device = "cpu";
    options.kv_dtype = DType::kF32;
    options.threads = 2;
    options.kv_cache_bytes = 8 << 20;
    options.max_running_sequences = 16;
    AddTokenTexts(options);
    StatusOr<std::unique_ptr<ModelRunner>> runner = MakeLlamaRunner(options, {});
    EXPECT_TRUE(runner.ok()) << runner.status().message();
    CoreHarness harness(options, std::move(runner.value()));
    RequestRecord record = harness.Run(request);
    EXPECT_TRUE(record.done->status.ok()) << record.done->status.message();
    return record;
  }

  /// Rows after block `layer` of a request, position by position.
  std::vector<float> Rows(EngineRequest request, int32_t layer, bool before_steering) const {
    request.capture = CaptureParams{.sites = {CaptureSiteKind::kResidPost}, .layers = {layer}};
    request.capture->before_steering = before_steering;
    const RequestRecord record = Run(request);
    const std::vector<uint8_t>& data = record.captures.begin()->second.data;
    std::vector<float> rows(data.size() / sizeof(float));
    std::memcpy(rows.data(), data.data(), data.size());
    return rows;
  }

  std::span<const float> RowAt(const std::vector<float>& rows, int32_t position) const {
    const auto width = static_cast<size_t>(checkpoint_.config().hidden_size);
    return std::span(rows).subspan(static_cast<size_t>(position) * width, width);
  }
  double DotAt(const std::vector<float>& rows, int32_t position, VectorHandle handle,
               int32_t layer) const {
    const std::vector<float> vector =
        TestVector(checkpoint_.config(), handle).rows[static_cast<size_t>(layer)];
    const std::span<const float> row = RowAt(rows, position);
    double sum = 0.0;
    for (size_t i = 0; i < row.size(); ++i) {
      sum += static_cast<double>(row[i]) * static_cast<double>(vector[i]);
    }
    return sum;
  }

  TinyCheckpoint checkpoint_{TinyConfig(), DType::kF32, 1};
};

TEST_F(RealGate, ProbesAreTheDotProductsOfCapturedRows) {
  EngineRequest request = TestRequest(1, 40, 12);
  request.steering = {TestSteering(1, {1, 2}, 5)};
  request.probes = {{.vector = 3, .layer = 2}};
  const RequestRecord record = Run(request);
  const std::vector<float> rows = Rows(request, 2, false);
  int32_t read = 0;
  for (const auto& [key, probe] : record.probes) {
    for (size_t i = 0; i < probe.positions.size(); ++i, ++read) {
      const double exact = DotAt(rows, probe.positions[i], 3, 2);
      EXPECT_NEAR(static_cast<double>(probe.scores[i]), exact, 1e-4 * (1.0 + std::fabs(exact)));
    }
  }
  EXPECT_EQ(read, 12);  // one a generated token
}

TEST_F(RealGate, AGateOnEachTokenFiresWhereCapturedRowsSaySo) {
  EngineRequest request = TestRequest(1, 40, 12);
  SteeringParams steering = TestSteering(1, {1, 3});
  steering.gate = GateParams{.vector = 2, .layer = 1, .threshold = 0.2f};
  request.steering = {steering};
  const RequestRecord record = Run(request);
  const std::vector<float> rows = Rows(request, 1, true);
  const std::vector<float> after = Rows(request, 1, false);
  uint64_t fired = 0;
  for (int32_t p = 0; p < 51; ++p) {
    const bool open = DotAt(rows, p, 2, 1) > 0.2;
    fired += open ? 1 : 0;
    const auto before_row = RowAt(rows, p);
    EXPECT_EQ(std::ranges::equal(before_row, RowAt(after, p)), !open) << p;
  }
  EXPECT_GT(fired, 0u);
  EXPECT_LT(fired, 51u);
  EXPECT_EQ(record.done->applied[0].gate_fired, fired);
  EXPECT_EQ(record.done->applied[0].gate_evaluations, 51u);
}

TEST_F(RealGate, AGateOnThePromptDecidesByTheMeanOfCapturedRows) {
  EngineRequest request = TestRequest(1, 40, 4);
  const std::vector<float> rows = Rows(request, 2, true);
  double mean = 0.0;
  for (int32_t p = 0; p < 40; ++p) mean += DotAt(rows, p, 2, 2) / 40;
  const double last = DotAt(rows, 39, 2, 2);
  for (const GateScope scope : {GateScope::kPromptMean, GateScope::kPromptLastToken}) {
    const double score = scope == GateScope::kPromptMean ? mean : last;
    for (const double offset : {-1e-3, 1e-3}) {
      SteeringParams steering = TestSteering(1, {0, 1});
      steering.gate = GateParams{.vector = 2, .layer = 2, .scope = scope};
      steering.gate->threshold = static_cast<float>(score + offset);
      request.steering = {steering};
      const RequestRecord record = Run(request);
      EXPECT_EQ(record.done->applied[0].gate_fired, offset < 0 ? 1u : 0u);
      EXPECT_EQ(record.done->applied[0].prompt_tokens, offset < 0 ? 40u : 0u);
    }
  }
}

TEST_F(RealGate, KlIsThatOfTheReportedDistributions) {
  const auto vocabulary = static_cast<uint32_t>(checkpoint_.config().vocab_size);
  EngineRequest request = TestRequest(1, 30, 10);
  SteeringParams steering = TestSteering(1, {1}, 20);
  steering.coefficient = 3.0f;
  request.steering = {steering};
  request.sampling.temperature = 0.7f;  // the comparison is of the distribution before options
  request.sampling.top_k = 5;
  request.sampling.top_logprobs = vocabulary;
  request.compare_unsteered = true;
  const RequestRecord steered = Run(request);

  EngineRequest unsteered = TestRequest(2, 30, 0);
  unsteered.sampling.top_logprobs = vocabulary;
  for (const ScoredToken& token : steered.tokens.at(0)) {
    unsteered.prompt_token_ids.push_back(token.token_id);
  }
  unsteered.prompt_logprobs_from = 30;
  const RequestRecord plain = Run(unsteered);
  for (size_t i = 0; i < 10; ++i) {
    std::vector<double> log_q(vocabulary);
    for (const TokenLogprob& top : plain.prompt_logprobs[i].top) {
      log_q[top.token_id] = static_cast<double>(top.logprob);
    }
    double kl = 0.0;
    for (const TokenLogprob& top : steered.tokens.at(0)[i].top) {
      const auto log_p = static_cast<double>(top.logprob);
      kl += std::exp(log_p) * (log_p - log_q[top.token_id]);
    }
    EXPECT_GT(kl, 1e-3);
    EXPECT_NEAR(*steered.kl.at(0)[i], kl, 1e-5 * (1.0 + kl)) << i;
  }
}

}  // namespace
}  // namespace llama_steer
