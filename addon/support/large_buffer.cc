#include "support/large_buffer.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace llama_steer {
namespace {
constexpr size_t kCacheLineBytes = 64;
constexpr size_t kHugePageBytes = size_t{2} << 20;
}  // namespace

LargeBuffer AllocateLargeBuffer(size_t bytes) {
  const bool huge = bytes >= kHugePageBytes;
  void* memory = nullptr;
  const size_t size = bytes == 0 ? 1 : bytes;
  if (posix_memalign(&memory, huge ? kHugePageBytes : kCacheLineBytes, size) != 0) return nullptr;
  LargeBuffer buffer(static_cast<uint8_t*>(memory));
#ifdef MADV_HUGEPAGE
  // Whole pages only: the rest would take one for itself. A refusal leaves small pages.
  if (huge) madvise(memory, size / kHugePageBytes * kHugePageBytes, MADV_HUGEPAGE);
#endif
  return buffer;
}

}  // namespace llama_steer
