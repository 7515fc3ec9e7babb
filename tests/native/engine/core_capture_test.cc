#include <gtest/gtest.h>

#include <cstring>

#include "engine/core_harness.h"
#include "support/float_types.h"

namespace llama_steer {
namespace {

using Site = CaptureSiteKind;
using SiteKey = std::pair<int32_t, int32_t>;

SiteKey KeyOf(Site site, int32_t layer) { return {static_cast<int32_t>(site), layer}; }

EngineRequest Capturing(RequestId id, int32_t prompt, uint32_t new_tokens, std::vector<Site> sites,
                        std::vector<int32_t> layers) {
  EngineRequest request = TestRequest(id, prompt, new_tokens);
  request.capture = CaptureParams{.sites = std::move(sites), .layers = std::move(layers)};
  return request;
}

std::vector<float> Floats(const CapturedSite& site) {
  std::vector<float> values(site.data.size() / sizeof(float));
  std::memcpy(values.data(), site.data.data(), site.data.size());
  return values;
}

TEST(CoreCapture, ReturnsEverySiteAtEveryPositionOnce) {
  CoreHarness harness(TestOptions(), 64);
  const std::vector<Site> all = {Site::kResidPre, Site::kAttnOut, Site::kMlpOut, Site::kResidPost,
                                 Site::kFinalNorm};
  const EngineRequest request = Capturing(1, 100, 0, all, {0, 2});
  const RequestRecord& record = harness.Run(request);
  EXPECT_EQ(record.captures.size(), 4u * 2u + 1u);
  for (const auto& [site, rows] : record.captures) {
    ASSERT_EQ(rows.positions.size(), 100u);
    EXPECT_EQ(rows.positions.back(), 99);
    EXPECT_EQ(rows.token_ids, request.prompt_token_ids);
    EXPECT_EQ(rows.data.size(), 100u * 8u * sizeof(float));
  }
  EXPECT_TRUE(record.captures.contains(KeyOf(Site::kFinalNorm, kTestLayers - 1)));
  EXPECT_EQ(harness.Stats().capture_bytes, 9u * 100u * 8u * sizeof(float));
  harness.ExpectIdle();
}

TEST(CoreCapture, ResidPreIsTheBlockBeforeAsLaterLayersSeeIt) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = Capturing(1, 10, 0, {Site::kResidPre, Site::kResidPost}, {1, 2});
  request.steering = {TestSteering(1, {1})};
  RequestRecord& steered = harness.Run(request);
  EXPECT_EQ(steered.captures.at(KeyOf(Site::kResidPre, 2)).data,
            steered.captures.at(KeyOf(Site::kResidPost, 1)).data);
  request.id = 2;
  request.capture->before_steering = true;
  RequestRecord& before = harness.Run(request);
  EXPECT_EQ(before.captures.at(KeyOf(Site::kResidPre, 1)).data,
            steered.captures.at(KeyOf(Site::kResidPre, 1)).data);
  EXPECT_NE(before.captures.at(KeyOf(Site::kResidPost, 1)).data,
            steered.captures.at(KeyOf(Site::kResidPost, 1)).data);
}

TEST(CoreCapture, HonoursTheStagingLimit) {
  EngineOptions options = TestOptions();
  options.capture_staging_bytes = 10 * 8 * sizeof(float);  // ten rows
  CoreHarness harness(options, 64);
  harness.Submit(Capturing(1, 50, 0, {Site::kResidPost}, {0, 1, 2}));
  harness.Submit(Capturing(2, 30, 5, {Site::kAttnOut}, {0, 1}));
  harness.Submit(TestRequest(3, 30, 5));
  harness.Run();
  EXPECT_EQ(harness.transcript().of(1).captures.at(KeyOf(Site::kResidPost, 2)).positions.size(),
            50u);
  EXPECT_EQ(harness.transcript().of(2).captures.at(KeyOf(Site::kAttnOut, 1)).positions.size(), 34u);
  EXPECT_EQ(
      harness
          .Run(Capturing(4, 5, 0, {Site::kResidPre, Site::kMlpOut, Site::kAttnOut}, {0, 1, 2, 3}))
          .done->status.code(),
      StatusCode::kInvalidArgument);  // twelve rows a token
  harness.ExpectIdle();
}

TEST(CoreCapture, CapturesGeneratedTokensOfASingleCompletion) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = Capturing(1, 10, 6, {Site::kResidPost}, {1});
  request.capture->position_begin = 8;
  const RequestRecord& record = harness.Run(request);
  const CapturedSite& site = record.captures.at(KeyOf(Site::kResidPost, 1));
  EXPECT_EQ(site.positions, (std::vector<int32_t>{8, 9, 10, 11, 12, 13, 14}));
  EXPECT_EQ(site.token_ids[2], record.tokens.at(0)[0].token_id);
  request.id = 2;
  request.completions = 2;
  EXPECT_EQ(harness.Run(request).done->status.code(), StatusCode::kInvalidArgument);
  request.id = 3;
  request.capture->position_end = 10;
  EXPECT_EQ(harness.Run(request).captures.at(KeyOf(Site::kResidPost, 1)).positions.size(), 2u);
}

TEST(CoreCapture, TheMeanIsOneRowAndDoesNotDependOnTheChunks) {
  std::vector<std::vector<uint8_t>> means;
  for (const int32_t chunk : {1, 7, 64, 512}) {
    EngineOptions options = TestOptions();
    options.max_batch_tokens = chunk;
    CoreHarness harness(options, 64);
    EngineRequest request = Capturing(1, 100, 3, {Site::kResidPost}, {1});
    request.capture->position_begin = 20;
    request.capture->position_end = 90;
    request.capture->mean = true;
    const RequestRecord& record = harness.Run(request);
    const CapturedSite& site = record.captures.at(KeyOf(Site::kResidPost, 1));
    EXPECT_EQ(site.positions, (std::vector<int32_t>{20, 89}));
    EXPECT_EQ(site.token_ids,
              (std::vector<uint32_t>{request.prompt_token_ids[20], request.prompt_token_ids[89]}));
    means.push_back(site.data);

    request.id = 2;
    request.capture->mean = false;
    const std::vector<float> rows =
        Floats(harness.Run(request).captures.at(KeyOf(Site::kResidPost, 1)));
    double sum = 0.0;
    for (size_t t = 0; t < 70; ++t) sum += static_cast<double>(rows[t * 8]);
    EXPECT_EQ(Floats(site)[0], static_cast<float>(sum / 70));
  }
  for (const auto& mean : means) EXPECT_EQ(mean, means[0]);
}

TEST(CoreCapture, AMeanOverGeneratedTokensComesAtTheEnd) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = Capturing(1, 10, 20, {Site::kResidPost}, {1});
  request.capture->mean = true;
  harness.Submit(request);
  harness.Step();
  EXPECT_TRUE(harness.transcript().of(1).captures.empty());
  harness.Run();
  EXPECT_EQ(harness.transcript().of(1).captures.at(KeyOf(Site::kResidPost, 1)).positions,
            (std::vector<int32_t>{0, 28}));
  harness.ExpectIdle();
}

TEST(CoreCapture, RoundsToTheTypeAskedFor) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = Capturing(1, 10, 0, {Site::kResidPost}, {1});
  const std::vector<float> wide =
      Floats(harness.Run(request).captures.at(KeyOf(Site::kResidPost, 1)));
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    ++request.id;
    request.capture->dtype = dtype;
    const CapturedSite& site = harness.Run(request).captures.at(KeyOf(Site::kResidPost, 1));
    ASSERT_EQ(site.data.size(), wide.size() * 2);
    for (size_t i = 0; i < wide.size(); ++i) {
      uint16_t bits = 0;
      std::memcpy(&bits, site.data.data() + 2 * i, 2);
      EXPECT_EQ(bits, dtype == DType::kBF16 ? Bf16FromFloat(wide[i]) : F16FromFloat(wide[i]));
    }
  }
}

TEST(CoreCapture, WaitsForCreditsBetweenChunks) {
  EngineOptions options = TestOptions();
  options.max_batch_tokens = 10;
  CoreHarness harness(options, 64);
  EngineRequest request = Capturing(1, 30, 0, {Site::kResidPost}, {0, 1, 2});
  request.credits = 1;
  harness.Submit(request);
  harness.Run();
  EXPECT_EQ(harness.transcript().of(1).credited_events, 3);  // the events of one step
  harness.core().Grant(1, 2, 0);
  harness.Run();
  EXPECT_EQ(harness.transcript().of(1).credited_events, 3);  // back at zero only
  harness.core().Grant(1, 1, 0);
  harness.Run();
  EXPECT_EQ(harness.transcript().of(1).credited_events, 6);
  harness.core().Grant(1, 100, 0);
  harness.Run();
  EXPECT_EQ(harness.transcript().of(1).credited_events, 9);
  harness.ExpectIdle();
}

TEST(CoreCapture, NeverSendsMoreBytesThanAreGranted) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = Capturing(1, 30, 8, {Site::kResidPost}, {0, 1, 2});
  request.capture->position_begin = 4;
  constexpr uint64_t kTokenBytes = 3 * 8 * sizeof(float);
  request.capture_credit_bytes = kTokenBytes * 5 / 2;
  harness.Submit(request);
  harness.Run();
  const RequestRecord& record = harness.transcript().of(1);
  EXPECT_EQ(record.capture_bytes(), 2 * kTokenBytes);
  harness.core().Grant(1, 0, kTokenBytes / 2 - 1);
  harness.Run();
  EXPECT_EQ(record.capture_bytes(), 2 * kTokenBytes);
  harness.core().Grant(1, 0, 1);
  harness.Run();
  EXPECT_EQ(record.capture_bytes(), 3 * kTokenBytes);
  for (uint64_t tokens = 4; tokens <= 33; ++tokens) {  // the prompt's other 23, then generated ones
    EXPECT_FALSE(record.done);
    harness.core().Grant(1, 0, kTokenBytes);
    harness.Run();
    EXPECT_EQ(record.capture_bytes(), tokens * kTokenBytes);
  }
  EXPECT_TRUE(record.done);
  harness.ExpectIdle();
}

TEST(CoreCapture, ARequestWithoutByteCreditGivesItsBlocksToOthers) {
  CoreHarness harness(TestOptions(), 4);
  EngineRequest unread = Capturing(1, 60, 0, {Site::kResidPost}, {1});
  unread.capture_credit_bytes = 8 * sizeof(float);
  harness.Submit(unread);
  harness.Run();
  EXPECT_TRUE(harness.Run(TestRequest(2, 40, 10)).done->status.ok());
  harness.core().Grant(1, 0, 1 << 20);
  harness.Run();
  const RequestRecord& record = harness.transcript().of(1);
  EXPECT_TRUE(record.done->status.ok());
  EXPECT_EQ(record.captures.at(KeyOf(Site::kResidPost, 1)).positions.size(), 60u);
  harness.ExpectIdle();
}

TEST(CoreCapture, ByteCreditBelowOneTokenIsRefused) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = Capturing(1, 10, 0, {Site::kResidPost}, {0, 1});
  request.capture_credit_bytes = 2 * 8 * sizeof(float) - 1;
  EXPECT_EQ(harness.Run(request).done->status.code(), StatusCode::kInvalidArgument);
  request.id = 2;
  request.capture->mean = true;  // sent once, at the end
  EXPECT_TRUE(harness.Run(request).done->status.ok());
}

TEST(CoreCapture, BadSelectionsAreRefused) {
  CoreHarness harness(TestOptions(), 64);
  RequestId id = 0;
  const auto code = [&](auto change) {
    EngineRequest request = Capturing(++id, 10, 3, {Site::kResidPost}, {1});
    change(*request.capture);
    return harness.Run(request).done->status.code();
  };
  EXPECT_EQ(code([](auto&) {}), StatusCode::kOk);
  EXPECT_EQ(code([](auto& c) { c.sites.clear(); }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](auto& c) { c.layers.clear(); }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](auto& c) { c.layers = {4}; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](auto& c) { c.layers = {2, 1}; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](auto& c) { c.position_begin = 12; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](auto& c) { c.position_begin = -1; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](auto& c) { c.position_end = 0; }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](auto& c) { c.dtype = DType::kInt8; }), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace llama_steer
