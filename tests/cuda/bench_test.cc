// The benches of the kernels: that they run and leave none out. What they measure is not looked at.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <string_view>

#include "cuda/measure.h"

namespace llama_steer::cuda::bench {
namespace {

/// The name in "cudaError_t Name(const NameParams& params, cudaStream_t stream);", else nothing.
std::string DeclaredIn(std::string_view line) {
  constexpr std::string_view kReturns = "cudaError_t ";
  constexpr std::string_view kTakes = "(const ";
  if (!line.starts_with(kReturns) || !line.ends_with("Params& params, cudaStream_t stream);")) {
    return {};
  }
  line.remove_prefix(kReturns.size());
  const std::string_view name = line.substr(0, line.find('('));
  return line.substr(name.size()).starts_with(kTakes) ? std::string(name) : std::string();
}

std::set<std::string> LaunchFunctions() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(LLAMA_STEER_KERNELS)) {
    if (entry.path().extension() != ".h") continue;
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      const std::string name = DeclaredIn(line);
      if (!name.empty()) names.insert(name);
    }
  }
  return names;
}

std::set<std::string> KernelsOf(const std::vector<Case>& cases) {
  std::set<std::string> names;
  for (const Case& one : cases) names.insert(one.kernel);
  return names;
}

TEST(CudaBench, HasACaseForEveryKernel) {
  const std::set<std::string> declared = LaunchFunctions();
  ASSERT_GE(declared.size(), 15u);
  for (const char* shape : {"tiny", "llama-3.1-8b"}) {
    EXPECT_EQ(KernelsOf(AllCases(*BenchShapeByName(shape))), declared) << shape;
  }
}

TEST(CudaBench, NamesItsCasesApart) {
  std::set<std::string> names;
  for (const Case& one : AllCases(*BenchShapeByName("llama-3.1-8b"))) {
    EXPECT_TRUE(names.insert(one.kernel + " " + one.variant).second) << one.variant;
  }
  EXPECT_EQ(names.count("LinearGemv down fp8 rows=1"), 1u);
  EXPECT_EQ(names.count("LinearGemm gate_up bf16 rows=2048"), 1u);
  EXPECT_EQ(names.count("AttentionPrefill rows=8192 context=0"), 1u);
}

TEST(CudaBench, MeasuresEveryCase) {
  const BenchShape shape = *BenchShapeByName("tiny");
  StatusOr<std::unique_ptr<Meter>> meter = Meter::Open({.milliseconds = 0.0});
  ASSERT_TRUE(meter.ok()) << meter.status().message();
  const StatusOr<Limits> limits = meter.value()->MeasureLimits(shape);
  ASSERT_TRUE(limits.ok()) << limits.status().message();
  EXPECT_GT(limits.value().copy_gbps, 0.0);
  EXPECT_GT(limits.value().tflops(), 0.0);
  for (const Case& one : AllCases(shape)) {
    const StatusOr<Measured> measured = meter.value()->Measure(one);
    ASSERT_TRUE(measured.ok()) << one.kernel << " " << one.variant << ": "
                               << measured.status().message();
    EXPECT_GT(measured.value().timing.median_us, 0.0) << one.kernel;
    EXPECT_GT(measured.value().gbps(), 0.0) << one.kernel;
    EXPECT_TRUE(std::isfinite(measured.value().share(limits.value()))) << one.kernel;
  }
}

}  // namespace
}  // namespace llama_steer::cuda::bench
