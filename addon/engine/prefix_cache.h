// Full KV blocks by what made them. A key is the hash chain
//   key = hash(key of the block before, tokens, steering that acted on exactly these tokens),
// so a block is found again only by a sequence whose whole history made the same keys and values.
// The proof of steering of a block's tokens is kept with it: a reused block proves what a fresh
// one would. Blocks that nobody holds stay until their room is needed, least recently used first.
// Pure: knows no device and no requests.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "backend/backend.h"
#include "engine/kv_blocks.h"
#include "engine/sha256.h"

namespace llama_steer {

/// The proof of all steerings that act on a block, in the order of the request.
struct BlockProof {
  Digest key{};                    // of those steerings, last block and inert ones included
  std::vector<SteerProof> tokens;  // [steerings acting on the block, block_tokens]
};

class PrefixCache {
 public:
  /// Other steerings that made the same KV (they differ after the last attention only) and whose
  /// proof is kept with one block.
  static constexpr size_t kMaxProofsPerBlock = 4;

  /// Disabled: counts references, keeps nothing.
  PrefixCache(int32_t blocks, int32_t block_tokens, bool enabled);

  bool enabled() const { return enabled_; }
  int32_t block_tokens() const { return block_tokens_; }
  const KvBlocks& blocks() const { return blocks_; }

  /// A block with one reference and no content, kNoBlock when all are used.
  int32_t Allocate();
  void Retain(int32_t block) { blocks_.Retain(block); }
  void Release(int32_t block);
  /// Releases all, the last one first, so that a chain is evicted from its end.
  void ReleaseAll(std::vector<int32_t>& blocks);

  /// The block with this key and these tokens, not retained; kNoBlock when there is none.
  int32_t Find(const Digest& key, std::span<const uint32_t> tokens) const;
  /// The proof kept with a block; null when these steerings never made it.
  const BlockProof* FindProof(int32_t block, const Digest& proof_key) const;

  /// Offers a full block that the caller holds. `proof` is null when nothing steers it. When the
  /// content is held already, only the proof is added to what is there.
  void Insert(const Digest& key, std::span<const uint32_t> tokens, int32_t block,
              std::unique_ptr<BlockProof> proof);

 private:
  struct Entry {
    bool cached = false;
    Digest key{};
    std::vector<uint32_t> tokens;
    std::vector<std::unique_ptr<BlockProof>> proofs;
  };
  Entry& EntryOf(int32_t block) { return entries_[static_cast<size_t>(block)]; }
  void Forget(int32_t block);

  int32_t block_tokens_;
  bool enabled_;
  KvBlocks blocks_;
  std::vector<Entry> entries_;  // by block
  std::unordered_map<Digest, int32_t, DigestHash> by_key_;
};

}  // namespace llama_steer
