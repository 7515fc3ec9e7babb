// Adapters of requests: pins, block keys, rows of several adapters in one step.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

EngineRequest Under(AdapterHandle adapter, RequestId id, int32_t prompt = 40, uint32_t tokens = 8) {
  EngineRequest request = TestRequest(id, prompt, tokens);
  request.adapter = adapter;
  return request;
}

TEST(CoreAdapter, ChangesWhatARequestSays) {
  CoreHarness harness(TestOptions(), 64);
  const RequestRecord base = harness.Run(Under(kNoAdapter, 1));
  const RequestRecord first = harness.Run(Under(1, 2));
  const RequestRecord second = harness.Run(Under(2, 3));
  EXPECT_NE(Difference(base, first), "");
  EXPECT_NE(Difference(base, second), "");
  EXPECT_NE(Difference(first, second), "");
  harness.ExpectIdle();
}

TEST(CoreAdapter, BlocksAreSharedUnderTheSameAdapterOnly) {
  CoreHarness harness(TestOptions(), 64);
  harness.Run(Under(kNoAdapter, 1));
  EXPECT_EQ(harness.Run(Under(1, 2)).done->cached_prompt_tokens, 0u);
  EXPECT_EQ(harness.Run(Under(2, 3)).done->cached_prompt_tokens, 0u);
  for (const AdapterHandle adapter : {kNoAdapter, AdapterHandle{1}, AdapterHandle{2}}) {
    const RequestRecord& again = harness.Run(Under(adapter, 10 + adapter));
    EXPECT_EQ(again.done->cached_prompt_tokens, 32u);
    EXPECT_EQ(Difference(again, harness.transcript().of(1 + adapter)), "");
  }
}

TEST(CoreAdapter, AnotherHandleWithTheSameContentSharesBlocks) {
  CoreHarness harness(TestOptions(), 64);
  const TestLora lora(TestOptions().config, 1);
  harness.core().PutAdapter(7, lora.digest(), lora.lora());
  const RequestRecord first = harness.Run(Under(1, 1));
  const RequestRecord& second = harness.Run(Under(7, 2));
  EXPECT_EQ(second.done->cached_prompt_tokens, 32u);
  EXPECT_EQ(Difference(first, second), "");
}

TEST(CoreAdapter, RowsOfEachAdapterLieSideBySide) {
  CoreHarness harness(TestOptions(), 64);
  size_t most_groups = 0;
  // The fake model refuses rows of one adapter that are apart.
  harness.fake().on_forward = [&](const ForwardStep& step) {
    most_groups = std::max(most_groups, step.adapters.size());
    return Status::Ok();
  };
  for (RequestId id = 1; id <= 9; ++id) harness.Submit(Under(id % 3, id, 5));
  harness.Run();
  harness.ExpectIdle();
  EXPECT_EQ(most_groups, 2u);
}

TEST(CoreAdapter, CompletionsOfARequestRunUnderItsAdapter) {
  CoreHarness harness(TestOptions(), 64);
  EngineRequest request = Under(2, 1);
  request.completions = 3;
  request.sampling.temperature = 0.0f;
  const RequestRecord several = harness.Run(request);
  EngineRequest single = Under(2, 2);
  single.sampling.temperature = 0.0f;
  const RequestRecord& one = harness.Run(single);
  for (uint32_t completion = 0; completion < 3; ++completion) {
    const auto& tokens = several.tokens.at(completion);
    ASSERT_EQ(tokens.size(), one.tokens.at(0).size());
    for (size_t i = 0; i < tokens.size(); ++i) {
      EXPECT_EQ(tokens[i].token_id, one.tokens.at(0)[i].token_id);
    }
  }
}

TEST(CoreAdapter, ADroppedAdapterStaysUntilItsRequestsHaveEnded) {
  CoreHarness harness(TestOptions(), 64);
  const RequestRecord alone = harness.Run(Under(1, 1));
  harness.Submit(Under(1, 2));
  harness.Step();
  harness.core().DropAdapter(1);
  EXPECT_EQ(harness.fake().adapters(), kTestAdapters);
  EXPECT_EQ(harness.Stats().resident_adapters, 1u);
  harness.Run();
  EXPECT_EQ(Difference(harness.transcript().of(2), alone), "");
  EXPECT_EQ(harness.fake().adapters(), kTestAdapters - 1);
}

TEST(CoreAdapter, AnUnknownOrDroppedAdapterIsNotFound) {
  CoreHarness harness(TestOptions(), 64);
  EXPECT_EQ(harness.Run(Under(9, 1)).done->status.code(), StatusCode::kNotFound);
  harness.core().DropAdapter(1);
  harness.core().DropAdapter(9);
  EXPECT_EQ(harness.Run(Under(1, 2)).done->status.code(), StatusCode::kNotFound);
  EXPECT_TRUE(harness.Run(Under(2, 3)).done->status.ok());
}

TEST(CoreAdapter, ADeviceWithoutRoomTellsTheRequests) {
  CoreHarness harness(TestOptions(), 64);
  harness.fake().adapter_status = Status::ResourceExhausted("full");
  const TestLora lora(TestOptions().config, 1);
  harness.core().PutAdapter(5, lora.digest(), lora.lora());
  EXPECT_EQ(harness.Run(Under(5, 1)).done->status.code(), StatusCode::kResourceExhausted);
}

TEST(CoreAdapter, StatsCountWhatIsHeld) {
  CoreHarness harness(TestOptions(), 64);
  const uint64_t first = TestLora(TestOptions().config, 1).lora().bytes();
  const uint64_t second = TestLora(TestOptions().config, 2).lora().bytes();
  EXPECT_EQ(harness.Stats().resident_adapters, 2u);
  EXPECT_EQ(harness.Stats().resident_adapter_bytes, first + second);
  harness.core().DropAdapter(1);
  EXPECT_EQ(harness.Stats().resident_adapter_bytes, second);
}

}  // namespace
}  // namespace llama_steer
