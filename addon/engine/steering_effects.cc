#include "engine/steering_effects.h"

namespace llama_steer {
namespace {

void AddGate(Sha256& hash, const SteeringEntry& entry) {
  hash.Add(entry.gated_by_token());
  if (!entry.gated_by_token()) return;
  const GateParams& gate = *entry.params.gate;
  hash.Add(entry.gate_vector->digest());
  hash.Add(gate.layer);
  hash.Add(static_cast<uint8_t>(gate.metric));
  hash.Add(static_cast<uint8_t>(gate.comparator));
  hash.Add(gate.threshold);
}

void AddEntry(Sha256& hash, const SteeringEntry& entry, PositionRange acts, PositionRange block,
              std::span<const int32_t> layers) {
  const PositionRange acted = Intersect(acts, block);
  const SteeringParams& params = entry.params;
  const bool clamps = params.kind == SteerKind::kClamp;
  hash.Add(entry.vector->digest());
  hash.Add(static_cast<uint8_t>(params.kind));
  hash.Add(params.coefficient);
  hash.Add(clamps ? params.clamp_min : 0.0f);
  hash.Add(clamps ? params.clamp_max : 0.0f);
  hash.Add(params.preserve_norm);
  hash.Add(acted.begin - block.begin);
  hash.Add(acted.end - block.begin);
  hash.Add(static_cast<uint64_t>(layers.size()));
  for (const int32_t layer : layers) hash.Add(layer);
  AddGate(hash, entry);
}

}  // namespace

bool IsInert(const SteeringParams& params) {
  return params.coefficient == (params.kind == SteerKind::kScaleComponent ? 1.0f : 0.0f);
}

PositionRange SteeringEntry::meant(std::span<const TextProgress> texts) const {
  PositionRange range{params.position_begin, params.position_end};
  if (text == kNoText) return range;
  const TextProgress& progress = texts[static_cast<size_t>(text)];
  if (!progress.found()) return {};
  return Intersect(range, {progress.completed_at + 1, kOpenEnd});
}

PositionRange SteeringEntry::acts(std::span<const TextProgress> texts) const {
  const bool is_held = decision == GateDecision::kUndecided || decision == GateDecision::kNotFired;
  return is_held ? PositionRange{} : meant(texts);
}

void AddKvEffects(Sha256& hash, const ActingSteerings& steerings, PositionRange block,
                  int32_t last_layer) {
  for (size_t i = 0; i < steerings.entries.size(); ++i) {
    const SteeringEntry& entry = steerings.entries[i];
    if (entry.inert || !steerings.ActsOn(i, block)) continue;
    std::span<const int32_t> layers = entry.params.layers;
    if (!layers.empty() && layers.back() == last_layer) layers = layers.first(layers.size() - 1);
    if (!layers.empty()) AddEntry(hash, entry, steerings.acts[i], block, layers);
  }
}

std::optional<Digest> ProofKey(const ActingSteerings& steerings, PositionRange block) {
  Sha256 hash;
  bool acted_on = false;
  for (size_t i = 0; i < steerings.entries.size(); ++i) {
    if (!steerings.ActsOn(i, block)) continue;
    const SteeringEntry& entry = steerings.entries[i];
    AddEntry(hash, entry, steerings.acts[i], block, entry.params.layers);
    acted_on = true;
  }
  if (!acted_on) return std::nullopt;
  return hash.Finish();
}

}  // namespace llama_steer
