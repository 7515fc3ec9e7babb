// What the steerings of a request do to one KV block, as hash input.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "engine/request.h"
#include "engine/sha256.h"
#include "engine/vector_table.h"

namespace llama_steer {

/// Half-open, absolute positions.
struct PositionRange {
  int32_t begin = 0;
  int32_t end = 0;
  bool empty() const { return begin >= end; }
  int32_t size() const { return empty() ? 0 : end - begin; }
  bool contains(int32_t position) const { return position >= begin && position < end; }
};
constexpr PositionRange Intersect(PositionRange a, PositionRange b) {
  return {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
}

/// A steering of a running request: its parameters and the vector it has pinned.
struct SteeringEntry {
  SteeringParams params;
  bool inert = false;  // its coefficient does nothing
  std::shared_ptr<const ResidentVector> vector;

  PositionRange positions() const { return {params.position_begin, params.position_end}; }
};

/// 0 for ADD, PROJECT_OUT and CLAMP, 1 for SCALE_COMPONENT.
bool IsInert(const SteeringParams& params);

/// Adds what changes the keys and values of `block`: entries in order, positions relative to the
/// block, without inert ones and without the last layer, after which nothing reads KV.
void AddKvEffects(Sha256& hash, std::span<const SteeringEntry> entries, PositionRange block,
                  int32_t last_layer);

/// Digest of everything that acts on `block`, inert entries and the last layer included: equal
/// digests (and equal KV keys) mean equal proofs. Nothing when no entry acts on the block.
std::optional<Digest> ProofKey(std::span<const SteeringEntry> entries, PositionRange block);

/// Number of entries that act on `block`.
size_t ActingEntries(std::span<const SteeringEntry> entries, PositionRange block);

}  // namespace llama_steer
