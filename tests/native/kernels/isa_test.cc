#include "backend/cpu/isa.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "backend/backend.h"

namespace llama_steer {
namespace {

TEST(IsaTest, AutoTakesTheBestThatIsAvailable) {
  const auto backend = CreateCpuBackend({1, "auto"});
  ASSERT_TRUE(backend.ok());
  EXPECT_EQ(backend.value()->info().isa, cpu::AvailableIsas().front());
  EXPECT_EQ(backend.value()->info().kind, "cpu");
  EXPECT_FALSE(backend.value()->info().name.empty());
}

TEST(IsaTest, APinnedInstructionSetIsTheOneReported) {
  for (const std::string& isa : cpu::AvailableIsas()) {
    const auto backend = CreateCpuBackend({1, isa});
    ASSERT_TRUE(backend.ok());
    EXPECT_EQ(backend.value()->info().isa, isa);
  }
}

TEST(IsaTest, WhatTheMachineLacksIsRefusedWithWhatItHas) {
  const auto available = cpu::AvailableIsas();
  for (const std::string isa : {"avx2", "avx512", "neon", "AVX2", "", "nonsense"}) {
    if (std::find(available.begin(), available.end(), isa) != available.end()) continue;
    const auto backend = CreateCpuBackend({1, isa});
    ASSERT_FALSE(backend.ok()) << isa;
    EXPECT_EQ(backend.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(backend.status().message().find(available.front()), std::string::npos);
  }
}

TEST(IsaTest, BackendsThatLiveTogetherShareOne) {
  const auto available = cpu::AvailableIsas();
  if (available.size() < 2) GTEST_SKIP() << "this machine has one instruction set only";
  auto first = CreateCpuBackend({1, available[1]});
  ASSERT_TRUE(first.ok());
  EXPECT_TRUE(CreateCpuBackend({1, available[1]}).ok());
  for (const std::string& isa : {available[0], std::string("auto")}) {
    const auto second = CreateCpuBackend({1, isa});
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  }
  first.value().reset();
  EXPECT_TRUE(CreateCpuBackend({1, available[0]}).ok());
}

TEST(IsaTest, ZeroThreadsMeansOneForEachCore) {
  const auto backend = CreateCpuBackend({0, "auto"});
  ASSERT_TRUE(backend.ok());
  EXPECT_GE(backend.value()->info().threads, 1);
  EXPECT_EQ(CreateCpuBackend({3, "auto"}).value()->info().threads, 3);
}

TEST(CpuBackendTest, BuffersThatCannotBeHadAreRefused) {
  const auto backend = CreateCpuBackend({1, "auto"});
  ASSERT_TRUE(backend.ok());
  EXPECT_EQ(backend.value()->AllocateActivations(-1, 4).status().code(),
            StatusCode::kInvalidArgument);
  for (const int64_t rows : {int64_t{1} << 45, int64_t{1} << 62}) {
    EXPECT_EQ(backend.value()->AllocateActivations(rows, 4).status().code(),
              StatusCode::kResourceExhausted);
  }
}

}  // namespace
}  // namespace llama_steer
