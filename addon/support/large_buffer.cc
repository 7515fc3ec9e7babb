#include "support/large_buffer.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace llama_steer {
namespace {
constexpr size_t kCacheLineBytes = 64;
constexpr size_t kHugePageBytes = size_t{2} << 20;

size_t RoundUp(size_t bytes, size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}
}  // namespace

LargeBuffer AllocateLargeBuffer(size_t bytes) {
  const bool huge = bytes >= kHugePageBytes;
  const size_t alignment = huge ? kHugePageBytes : kCacheLineBytes;
  if (bytes > SIZE_MAX - alignment) return nullptr;
  const size_t size = RoundUp(bytes == 0 ? 1 : bytes, kCacheLineBytes);
  LargeBuffer buffer(static_cast<uint8_t*>(std::aligned_alloc(alignment, size)));
#ifdef MADV_HUGEPAGE
  // Whole pages only: the rest would take one for itself. A refusal leaves small pages.
  if (buffer != nullptr && huge) {
    madvise(buffer.get(), size / kHugePageBytes * kHugePageBytes, MADV_HUGEPAGE);
  }
#endif
  return buffer;
}

}  // namespace llama_steer
