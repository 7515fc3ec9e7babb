#include "engine/kv_blocks.h"

#include <cstddef>

namespace llama_steer {

KvBlocks::KvBlocks(int32_t blocks) : nodes_(Index(blocks)) {
  free_.reserve(Index(blocks));
  for (int32_t block = blocks - 1; block >= 0; --block) free_.push_back(block);
}

KvBlocks::Taken KvBlocks::Take() {
  Taken taken;
  if (!free_.empty()) {
    taken.block = free_.back();
    free_.pop_back();
  } else if (oldest_ != kNoBlock) {
    taken = {.block = oldest_, .was_parked = true};
    Unpark(taken.block);
  } else {
    return taken;
  }
  nodes_[Index(taken.block)].references = 1;
  return taken;
}

void KvBlocks::Retain(int32_t block) {
  Node& node = nodes_[Index(block)];
  if (node.references == 0) Unpark(block);
  ++node.references;
}

void KvBlocks::Release(int32_t block, bool keep) {
  Node& node = nodes_[Index(block)];
  if (--node.references > 0) return;
  if (keep) {
    Park(block);
  } else {
    free_.push_back(block);
  }
}

void KvBlocks::Park(int32_t block) {
  Node& node = nodes_[Index(block)];
  node.older = newest_;
  node.newer = kNoBlock;
  (newest_ == kNoBlock ? oldest_ : nodes_[Index(newest_)].newer) = block;
  newest_ = block;
  ++parked_;
}

void KvBlocks::Unpark(int32_t block) {
  const Node& node = nodes_[Index(block)];
  (node.older == kNoBlock ? oldest_ : nodes_[Index(node.older)].newer) = node.newer;
  (node.newer == kNoBlock ? newest_ : nodes_[Index(node.newer)].older) = node.older;
  --parked_;
}

}  // namespace llama_steer
