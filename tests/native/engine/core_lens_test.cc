// The logit lens over a model made of hashes: which rows are read, how many at once.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

using Site = CaptureSiteKind;

EngineRequest Looking(RequestId id, int32_t prompt, std::vector<Site> sites,
                      std::vector<int32_t> layers, uint32_t top_k = 3) {
  EngineRequest request = TestRequest(id, prompt, 0);
  request.capture = CaptureParams{.sites = std::move(sites), .layers = std::move(layers)};
  request.capture->lens_top_k = top_k;
  request.capture_credit_bytes = 1ull << 40;
  return request;
}

const CapturedSite& SiteOf(const RequestRecord& record, Site site, int32_t layer) {
  return record.captures.at({static_cast<int32_t>(site), layer});
}

TEST(CoreLens, ReadsEveryCapturedRow) {
  CoreHarness harness(TestOptions(), 64);
  const RequestRecord& record =
      harness.Run(Looking(1, 50, {Site::kAttnOut, Site::kResidPost, Site::kFinalNorm}, {1, 3}));
  ASSERT_TRUE(record.done->status.ok()) << record.done->status.message();
  EXPECT_EQ(record.captures.size(), 5u);
  for (const auto& [key, site] : record.captures) {
    ASSERT_EQ(site.lens.size(), 50u);
    for (const auto& row : site.lens) EXPECT_EQ(row.size(), 3u);
  }
  EXPECT_NE(SiteOf(record, Site::kResidPost, 1).lens, SiteOf(record, Site::kResidPost, 3).lens);
  harness.ExpectIdle();
}

TEST(CoreLens, NeedsNoMoreRowsAtOnceThanAStepHasLogits) {
  EngineOptions options = TestOptions();
  CoreHarness roomy(options, 64);
  const EngineRequest request = Looking(1, 64, {Site::kResidPost}, {0, 1});
  const RequestRecord whole = roomy.Run(request);
  EXPECT_EQ(roomy.fake().most_unembedded_rows, 48u);
  options.max_running_sequences = 1;
  CoreHarness narrow(options, 64);
  EXPECT_EQ(Difference(narrow.Run(request), whole), "");
  EXPECT_EQ(narrow.fake().most_unembedded_rows, 33u);
}

TEST(CoreLens, ReadsSoManyRowsAStep) {
  EngineOptions options = TestOptions();
  options.max_batch_tokens = 512;
  CoreHarness harness(options, 64);
  std::vector<int64_t> captured;
  harness.fake().on_forward = [&](const ForwardStep& step) {
    captured.push_back(step.capture == nullptr
                           ? 0
                           : std::ranges::count_if(step.capture->row_slot,
                                                   [](int32_t slot) { return slot != 0; }));
    return Status::Ok();
  };
  const std::vector<Site> sites = {Site::kResidPre, Site::kAttnOut, Site::kMlpOut,
                                   Site::kResidPost};
  harness.Run(Looking(1, 200, sites, {0, 1, 2, 3}));
  EXPECT_EQ(captured.size(), 13u);
  EXPECT_EQ(*std::ranges::max_element(captured), kLensRowsPerStep / 16);
}

TEST(CoreLens, OfAMeanReadsTheMean) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = Looking(1, 1, {Site::kResidPost}, {2});
  const RequestRecord row = harness.Run(request);
  request.id = 2;
  request.capture->mean = true;
  request.capture->dtype = DType::kBF16;
  const RequestRecord& mean = harness.Run(request);
  ASSERT_EQ(SiteOf(mean, Site::kResidPost, 2).lens.size(), 1u);
  EXPECT_EQ(SiteOf(mean, Site::kResidPost, 2).lens, SiteOf(row, Site::kResidPost, 2).lens);
  EngineRequest longer = Looking(3, 90, {Site::kResidPost}, {2});
  longer.capture->mean = true;
  EXPECT_EQ(SiteOf(harness.Run(longer), Site::kResidPost, 2).lens.size(), 1u);
}

TEST(CoreLens, TakesNoMoreTokensThanTheVocabularyHas) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = Looking(1, 5, {Site::kResidPost}, {2}, 1001);
  EXPECT_EQ(harness.Run(request).done->status.code(), StatusCode::kInvalidArgument);
}

TEST(CoreLens, LogitsThatAreNotFiniteFailTheRequest) {
  CoreHarness harness(TestOptions(), 64);
  harness.fake().unembeds_nonfinite = true;
  const RequestRecord& record = harness.Run(Looking(1, 5, {Site::kResidPost}, {2}));
  EXPECT_EQ(record.done->status.code(), StatusCode::kInternal);
  EXPECT_NE(record.done->status.message().find("lens at layer 2, position 0"), std::string::npos);
  EXPECT_EQ(harness.Stats().nonfinite_rows, 1u);
  harness.ExpectIdle();
}

}  // namespace
}  // namespace llama_steer
