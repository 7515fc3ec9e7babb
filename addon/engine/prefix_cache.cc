#include "engine/prefix_cache.h"

#include <algorithm>
#include <utility>

namespace llama_steer {

PrefixCache::PrefixCache(int32_t blocks, int32_t block_tokens, bool enabled)
    : block_tokens_(block_tokens),
      enabled_(enabled),
      blocks_(blocks),
      entries_(static_cast<size_t>(blocks)) {}

int32_t PrefixCache::Allocate() {
  const KvBlocks::Taken taken = blocks_.Take();
  if (taken.was_parked) Forget(taken.block);
  return taken.block;
}

void PrefixCache::Release(int32_t block) { blocks_.Release(block, EntryOf(block).cached); }

void PrefixCache::ReleaseAll(std::vector<int32_t>& blocks) {
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) Release(*block);
  blocks.clear();
}

void PrefixCache::Forget(int32_t block) {
  Entry& entry = EntryOf(block);
  by_key_.erase(entry.key);
  entry = {};
}

int32_t PrefixCache::Find(const Digest& key, std::span<const uint32_t> tokens) const {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return kNoBlock;
  const Entry& entry = entries_[static_cast<size_t>(found->second)];
  return std::ranges::equal(entry.tokens, tokens) ? found->second : kNoBlock;
}

const BlockProof* PrefixCache::FindProof(int32_t block, const Digest& proof_key) const {
  for (const auto& proof : entries_[static_cast<size_t>(block)].proofs) {
    if (proof->key == proof_key) return proof.get();
  }
  return nullptr;
}

void PrefixCache::Insert(const Digest& key, std::span<const uint32_t> tokens, int32_t block,
                         std::unique_ptr<BlockProof> proof) {
  if (!enabled_) return;
  const auto [position, inserted] = by_key_.try_emplace(key, block);
  Entry& entry = EntryOf(position->second);
  if (inserted) {
    entry.cached = true;
    entry.key = key;
    entry.tokens.assign(tokens.begin(), tokens.end());
  }
  if (!proof || FindProof(position->second, proof->key) != nullptr) return;
  if (entry.proofs.size() == kMaxProofsPerBlock) entry.proofs.erase(entry.proofs.begin());
  entry.proofs.push_back(std::move(proof));
}

}  // namespace llama_steer
