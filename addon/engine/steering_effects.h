// What the steerings of a request do to one KV block, as hash input.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "engine/request.h"
#include "engine/sha256.h"
#include "engine/text_matcher.h"
#include "engine/vector_table.h"

namespace llama_steer {

/// Half-open, absolute positions.
struct PositionRange {
  int32_t begin = 0;
  int32_t end = 0;
  bool empty() const { return begin >= end; }
  int32_t size() const { return empty() ? 0 : end - begin; }
  bool contains(int32_t position) const { return position >= begin && position < end; }
  bool operator==(const PositionRange&) const = default;
};
constexpr PositionRange Intersect(PositionRange a, PositionRange b) {
  return {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
}

/// Whether a gate on the prompt lets its steering act.
enum class GateDecision : uint8_t { kUngated, kUndecided, kFired, kNotFired };

inline constexpr int32_t kNoText = -1;

/// A steering of a running request: its parameters and the vectors it has pinned.
struct SteeringEntry {
  SteeringParams params;
  bool inert = false;  // its coefficient does nothing
  std::shared_ptr<const ResidentVector> vector;
  std::shared_ptr<const ResidentVector> gate_vector{};  // null without a gate
  GateDecision decision = GateDecision::kUngated;       // of a gate on the prompt
  int32_t text = kNoText;  // of after_text, index in the texts that the request looks for

  /// Its gate is evaluated on each token.
  bool gated_by_token() const { return params.gate && params.gate->scope == GateScope::kEachToken; }
  /// Positions that it is meant for, whatever its gate says; empty while its text has not appeared.
  PositionRange meant(std::span<const TextProgress> texts) const;
  /// Positions that it acts on: none while a gate on the prompt has not fired.
  PositionRange acts(std::span<const TextProgress> texts) const;
};

/// 0 for ADD, PROJECT_OUT and CLAMP, 1 for SCALE_COMPONENT.
bool IsInert(const SteeringParams& params);

/// The steerings of a request in one of its sequences.
struct ActingSteerings {
  std::span<const SteeringEntry> entries;
  std::span<const PositionRange> acts;  // one an entry

  bool ActsOn(size_t index, PositionRange block) const {
    return !Intersect(acts[index], block).empty();
  }
};

/// Adds what changes the keys and values of `block`: entries in order, positions relative to the
/// block, gates on each token, without inert ones and without the last layer, after which nothing
/// reads KV.
void AddKvEffects(Sha256& hash, const ActingSteerings& steerings, PositionRange block,
                  int32_t last_layer);

/// Digest of everything that acts on `block`, inert entries and the last layer included: equal
/// digests (and equal KV keys) mean equal proofs. Nothing when no entry acts on the block.
std::optional<Digest> ProofKey(const ActingSteerings& steerings, PositionRange block);

}  // namespace llama_steer
