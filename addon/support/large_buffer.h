// Memory for weights and caches that are read from end to end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace llama_steer {

struct FreeLargeBuffer {
  void operator()(uint8_t* bytes) const { std::free(bytes); }
};
using LargeBuffer = std::unique_ptr<uint8_t[], FreeLargeBuffer>;

/// `bytes` bytes, uninitialised, aligned to a cache line; null when there is no memory. Where the
/// system has huge pages they are asked for: a core that streams through pages of 4 KiB spends its
/// time on finding them, in a virtual machine above all.
LargeBuffer AllocateLargeBuffer(size_t bytes);

}  // namespace llama_steer
