#include "backend/loader.h"

#include <gtest/gtest.h>

#include <string>

namespace llama_steer {
namespace {

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
