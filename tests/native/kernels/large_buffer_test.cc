#include "support/large_buffer.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>

namespace llama_steer {
namespace {

uintptr_t AddressOf(const LargeBuffer& buffer) { return reinterpret_cast<uintptr_t>(buffer.get()); }

TEST(LargeBuffer, HoldsEveryByteFromTheSmallestToSeveralHugePages) {
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{65}, (size_t{2} << 20) - 1,
                             size_t{2} << 20, (size_t{5} << 20) + 3}) {
    const LargeBuffer buffer = AllocateLargeBuffer(bytes);
    ASSERT_NE(buffer, nullptr) << bytes;
    EXPECT_EQ(AddressOf(buffer) % 64, 0u) << bytes;
    std::memset(buffer.get(), 0xa5, bytes);
    if (bytes == 0) continue;
    EXPECT_EQ(buffer[bytes - 1], 0xa5) << bytes;
  }
}

TEST(LargeBuffer, BeginsAHugePageWhenItFillsOne) {
  EXPECT_EQ(AddressOf(AllocateLargeBuffer(size_t{3} << 20)) % (size_t{2} << 20), 0u);
}

TEST(LargeBuffer, IsNullWhereThereIsNoMemory) {
  EXPECT_EQ(AllocateLargeBuffer(std::numeric_limits<size_t>::max()), nullptr);
  EXPECT_EQ(AllocateLargeBuffer(std::numeric_limits<size_t>::max() - (size_t{4} << 20)), nullptr);
}

}  // namespace
}  // namespace llama_steer
