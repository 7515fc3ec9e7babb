// Layout of the paged KV cache on the CPU. One page holds 16 tokens of one key/value head of one
// layer: keys transposed `[head_size, 16]`, so that 16 scores are one vector, then values
// `[16, head_size]`. Pages of a block: [layer][block][kv_head].
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "backend/backend.h"

namespace llama_steer::cpu {

inline constexpr int32_t kPageTokens = 16;
inline constexpr int32_t kMaxHeadSize = 256;

struct CpuKvCache final : KvCache {
  struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  std::unique_ptr<uint8_t[], Free> bytes;  // from calloc: pages come zeroed, on first use

  size_t page_elements() const {
    return 2 * static_cast<size_t>(kPageTokens) * static_cast<size_t>(shape.head_size);
  }
  size_t page_bytes() const { return page_elements() * DTypeBytes(shape.dtype); }
  /// Bytes of all heads of one block in one layer.
  size_t block_bytes() const { return page_bytes() * static_cast<size_t>(shape.kv_heads); }

  uint8_t* Page(int32_t layer, int32_t block, int32_t kv_head) const {
    const size_t row =
        static_cast<size_t>(layer) * static_cast<size_t>(shape.blocks) + static_cast<size_t>(block);
    return bytes.get() + row * block_bytes() + static_cast<size_t>(kv_head) * page_bytes();
  }
};

inline CpuKvCache& AsCpu(KvCache& cache) { return static_cast<CpuKvCache&>(cache); }
inline const CpuKvCache& AsCpu(const KvCache& cache) {
  return static_cast<const CpuKvCache&>(cache);
}

}  // namespace llama_steer::cpu
