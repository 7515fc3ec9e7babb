#include "backend/loader.h"

#include <gtest/gtest.h>

#include <string>

namespace llama_steer {
namespace {

struct UnusablePlugin {
  const char* name = "";
  const char* reason = "";
};
constexpr UnusablePlugin kUnusablePlugins[] = {
    {"not_there", "no CUDA backend"},
    {"other_library", "has no llama_steer_backend_plugin"},
    {"newer", "has API version"},
    {"no_device", "no CUDA device can be used"},
    {"create_fails", "device 0 is on fire"},
    {"create_fails_silently", "the CUDA device failed"},
};
std::string FolderOf(const UnusablePlugin& plugin) {
  return std::string(LLAMA_STEER_TEST_PLUGINS "/") + plugin.name;
}

TEST(CreateBackend, AutoTakesTheCpuAndSaysWhyWhenThePluginCannotBeUsed) {
  for (const UnusablePlugin& plugin : kUnusablePlugins) {
    std::string why;
    const auto backend = CreateBackend("auto", "auto", 1, &why, FolderOf(plugin));
    ASSERT_TRUE(backend.ok()) << plugin.name;
    EXPECT_EQ(backend.value()->info().kind, "cpu");
    EXPECT_NE(why.find(plugin.reason), std::string::npos) << plugin.name << ": " << why;
  }
}

TEST(CreateBackend, CudaIsAnErrorThatSaysWhyWhenThePluginCannotBeUsed) {
  for (const UnusablePlugin& plugin : kUnusablePlugins) {
    std::string why;
    const auto backend = CreateBackend("cuda", "auto", 1, &why, FolderOf(plugin));
    ASSERT_FALSE(backend.ok()) << plugin.name;
    EXPECT_EQ(backend.status().code(), StatusCode::kFailedPrecondition);
    const std::string& message = backend.status().message();
    EXPECT_NE(message.find(plugin.reason), std::string::npos) << plugin.name << ": " << message;
    EXPECT_EQ(why, "");
  }
}

TEST(CreateBackend, TheCpuThatWasAskedForNeedsNoReason) {
  std::string why;
  ASSERT_TRUE(CreateBackend("cpu", "auto", 1, &why).ok());
  EXPECT_EQ(why, "");
}

TEST(CreateBackend, GivesTheCpuWhereThereIsNothingElse) {
  for (const char* device : {"cpu", "auto"}) {
    StatusOr<std::unique_ptr<Backend>> backend = CreateBackend(device, "auto", 3);
    ASSERT_TRUE(backend.ok()) << backend.status().message();
    EXPECT_EQ((*backend)->info().kind, "cpu");
    EXPECT_EQ((*backend)->info().threads, 3);
  }
}

TEST(CreateBackend, SaysWhyThereIsNoCuda) {
  for (const char* device : {"cuda", "cuda:0", "cuda:7"}) {
    const StatusOr<std::unique_ptr<Backend>> backend = CreateBackend(device, "auto", 1);
    ASSERT_FALSE(backend.ok());
    EXPECT_EQ(backend.status().code(), StatusCode::kFailedPrecondition);
    EXPECT_NE(backend.status().message().find("no CUDA"), std::string::npos)
        << backend.status().message();
  }
}

TEST(CreateBackend, RefusesDevicesItDoesNotKnow) {
  for (const char* device :
       {"", "CPU", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda1", "cuda:99999999999"}) {
    const StatusOr<std::unique_ptr<Backend>> backend = CreateBackend(device, "auto", 1);
    ASSERT_FALSE(backend.ok()) << device;
    EXPECT_EQ(backend.status().code(), StatusCode::kInvalidArgument) << device;
  }
}

TEST(CreateBackend, RefusesAnInstructionSetThatIsNotThere) {
  const StatusOr<std::unique_ptr<Backend>> backend = CreateBackend("cpu", "mmx", 1);
  ASSERT_FALSE(backend.ok());
  EXPECT_EQ(backend.status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace llama_steer
