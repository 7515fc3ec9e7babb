// What the CUDA backend promises beside the results that tests/native compares: any order of
// threads gives the same bits, and what does not fit is an error.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "backend/loader.h"
#include "model/runner.h"
#include "model/tiny_checkpoint.h"

namespace llama_steer {
namespace {

using test::Prompt;
using test::Runner;
using test::TinyCheckpoint;

LlamaConfig Config() {
  LlamaConfig config = test::TinyConfig();
  config.head_size = 32;  // for the tensor cores
  return config;
}

/// A prompt in two chunks, then a generated token beside another prompt, then two alone.
std::vector<std::vector<float>> Logits(const LlamaConfig& config, TinyCheckpoint& checkpoint) {
  Runner runner(config, checkpoint, DType::kBF16);
  const std::vector<int32_t> first = Prompt(70, 1, config.vocab_size);
  const std::vector<int32_t> second = Prompt(33, 2, config.vocab_size);
  auto logits = runner.Step({{0, 0, {first.begin(), first.begin() + 50}}});
  for (auto& row : runner.Step({{0, 50, {first.begin() + 50, first.end()}}})) {
    logits.push_back(std::move(row));
  }
  for (auto& row : runner.Step({{0, 70, {7}}, {1, 0, second}})) logits.push_back(std::move(row));
  for (auto& row : runner.Step({{0, 71, {9}}, {1, 33, {4}}})) logits.push_back(std::move(row));
  return logits;
}

class OrderTest : public testing::Test {
 protected:
  void TearDown() override { unsetenv("LLAMA_STEER_EMULATOR_ORDER"); }
};

TEST_F(OrderTest, ThreadsAndBlocksInAnyOrderGiveTheSameBits) {
  const LlamaConfig config = Config();
  TinyCheckpoint checkpoint(config);
  const auto expected = Logits(config, checkpoint);
  for (const char* order : {"backwards", "random:1", "random:2"}) {
    setenv("LLAMA_STEER_EMULATOR_ORDER", order, 1);
    EXPECT_EQ(Logits(config, checkpoint), expected) << order;
  }
}

TEST(CudaBackend, SaysWhatItIsAndRefusesADeviceThatIsNotThere) {
  const auto backend = CreateBackend("auto", "auto", 1);
  ASSERT_TRUE(backend.ok()) << backend.status().message();
  EXPECT_TRUE(backend.value()->info().kind.starts_with("cuda"));
  EXPECT_TRUE(backend.value()->info().isa.starts_with("sm_"));
  const auto missing = CreateBackend("cuda:77", "auto", 1);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(missing.status().message().find("CUDA device 77"), std::string::npos)
      << missing.status().message();
}

TEST(CudaBackend, TwoStepsRunAtOnceAndNotThree) {
  const auto backend = CreateBackend("cuda", "auto", 1);
  ASSERT_TRUE(backend.ok());
  ASSERT_TRUE(backend.value()->RunsAhead());
  EXPECT_FALSE(backend.value()->AwaitStep({}, {}).ok());
  EXPECT_TRUE(backend.value()->BeginSample({}, {}).ok());
  EXPECT_TRUE(backend.value()->BeginSample({}, {}).ok());
  EXPECT_FALSE(backend.value()->BeginSample({}, {}).ok());
  EXPECT_TRUE(backend.value()->AwaitStep({}, {}).ok());
  EXPECT_TRUE(backend.value()->BeginSample({}, {}).ok());
  EXPECT_TRUE(backend.value()->AwaitStep({}, {}).ok());
  EXPECT_TRUE(backend.value()->AwaitStep({}, {}).ok());
  EXPECT_FALSE(backend.value()->AwaitStep({}, {}).ok());
}

TEST(CudaBackend, RunsStepByStepWhenItIsToldTo) {
  setenv("LLAMA_STEER_CUDA_ASYNC_STEPS", "off", 1);
  const auto backend = CreateBackend("cuda", "auto", 1);
  unsetenv("LLAMA_STEER_CUDA_ASYNC_STEPS");
  ASSERT_TRUE(backend.ok());
  EXPECT_FALSE(backend.value()->RunsAhead());
}

TEST(CudaBackend, LeavesMostOfTheFreeMemoryToTheKvCache) {
  const auto backend = CreateBackend("cuda", "auto", 1);
  ASSERT_TRUE(backend.ok());
  const StatusOr<uint64_t> before = backend.value()->KvCacheBudgetBytes();
  ASSERT_TRUE(before.ok());
  EXPECT_GT(before.value(), 0u);
  constexpr int64_t kRows = 1 << 20;
  ASSERT_TRUE(backend.value()->AllocateActivations(kRows, 64).ok());
  const StatusOr<uint64_t> after = backend.value()->KvCacheBudgetBytes();
  ASSERT_TRUE(after.ok());
  EXPECT_LE(after.value() + kRows * 64 * 4, before.value());
}

TEST(CudaBackend, AKvCacheThatDoesNotFitIsAnErrorAndNothingElse) {
  const auto backend = CreateBackend("cuda", "auto", 1);
  ASSERT_TRUE(backend.ok());
  KvCacheShape shape{.layers = 64, .blocks = 1 << 24, .kv_heads = 8, .head_size = 128};
  EXPECT_EQ(backend.value()->AllocateKvCache(shape).status().code(),
            StatusCode::kResourceExhausted);
  shape.blocks = 4;
  EXPECT_TRUE(backend.value()->AllocateKvCache(shape).ok());
}

TEST(CudaBackend, HidesNothingWiderThanItsKernels) {
  const auto backend = CreateBackend("cuda", "auto", 1);
  ASSERT_TRUE(backend.ok());
  ResidualSteerNorm args;
  args.residual.cols = 1 << 20;
  EXPECT_EQ(backend.value()->ApplyResidualSteerNorm(args, {}).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace llama_steer
