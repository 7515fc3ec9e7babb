// SHA-256 (FIPS 180-4): the keys of the prefix cache. A strong hash, because a collision would let
// one tenant read what another computed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

namespace llama_steer {

using Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  void Update(const void* data, size_t size_bytes);

  /// Numbers are hashed as their bytes in memory: keys never leave the process.
  template <typename T>
  requires std::is_arithmetic_v<T>
  void Add(T value) { Update(&value, sizeof(value)); }
  void Add(std::string_view text) {
    Add(static_cast<uint64_t>(text.size()));
    Update(text.data(), text.size());
  }
  void Add(const Digest& digest) { Update(digest.data(), digest.size()); }

  /// The object is spent afterwards.
  Digest Finish();

 private:
  void Compress(const uint8_t* block);

  std::array<uint32_t, 8> state_;
  std::array<uint8_t, 64> buffer_;
  uint64_t size_bytes_ = 0;
};

/// A digest is as good as random, so its first bytes are its hash.
struct DigestHash {
  size_t operator()(const Digest& digest) const {
    size_t value = 0;
    std::memcpy(&value, digest.data(), sizeof(value));
    return value;
  }
};

}  // namespace llama_steer
