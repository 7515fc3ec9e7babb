// Philox4x32-10 on the device: the numbers of addon/backend/cpu/philox.h.
#pragma once

#include "device/device.h"

namespace llama_steer::cuda {

/// Uniform in [0, 1) with 53 bits, of (seed, completion, position).
__device__ __forceinline__ double PhiloxUniform(uint64_t seed, uint32_t completion,
                                                uint32_t position) {
  uint32_t counter[4] = {position, completion, 0, 0};
  auto key0 = static_cast<uint32_t>(seed);
  auto key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = 0xD2511F53ull * counter[0];
    const uint64_t product1 = 0xCD9E8D57ull * counter[2];
    counter[0] = static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0;
    counter[1] = static_cast<uint32_t>(product1);
    counter[2] = static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1;
    counter[3] = static_cast<uint32_t>(product0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  const uint64_t bits = (static_cast<uint64_t>(counter[0]) << 32 | counter[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace llama_steer::cuda
