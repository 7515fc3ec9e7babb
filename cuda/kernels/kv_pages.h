// Layout of the paged KV cache on the device. One page holds 16 tokens of one key/value head of one
// layer: keys `[16, head_size]`, then values `[16, head_size]`. Pages: [layer][block][kv_head].
#pragma once

#include <cstdint>

#include "device/device.h"
#include "support/tensor_view.h"

namespace llama_steer::cuda {

inline constexpr int kPageTokens = 16;

struct KvPages {
  void* data = nullptr;
  DType dtype = DType::kBF16;  // kBF16 or kF32
  int32_t blocks = 0;
  int32_t kv_heads = 0;
  int32_t head_size = 0;

  __host__ __device__ int64_t page_values() const { return int64_t{2} * kPageTokens * head_size; }
  /// Index of the first value of a page.
  __host__ __device__ int64_t PageOffset(int32_t layer, int32_t block, int32_t kv_head) const {
    return ((static_cast<int64_t>(layer) * blocks + block) * kv_heads + kv_head) * page_values();
  }
};

}  // namespace llama_steer::cuda
