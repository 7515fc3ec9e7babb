#include "engine/steering_effects.h"

#include <algorithm>

namespace llama_steer {
namespace {

void AddEntry(Sha256& hash, const SteeringEntry& entry, PositionRange block,
              std::span<const int32_t> layers) {
  const PositionRange acted = Intersect(entry.positions(), block);
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
}

bool ActsOn(const SteeringEntry& entry, PositionRange block) {
  return !Intersect(entry.positions(), block).empty();
}

}  // namespace

bool IsInert(const SteeringParams& params) {
  return params.coefficient == (params.kind == SteerKind::kScaleComponent ? 1.0f : 0.0f);
}

void AddKvEffects(Sha256& hash, std::span<const SteeringEntry> entries, PositionRange block,
                  int32_t last_layer) {
  for (const SteeringEntry& entry : entries) {
    if (entry.inert || !ActsOn(entry, block)) continue;
    std::span<const int32_t> layers = entry.params.layers;
    if (!layers.empty() && layers.back() == last_layer) layers = layers.first(layers.size() - 1);
    if (!layers.empty()) AddEntry(hash, entry, block, layers);
  }
}

std::optional<Digest> ProofKey(std::span<const SteeringEntry> entries, PositionRange block) {
  if (ActingEntries(entries, block) == 0) return std::nullopt;
  Sha256 hash;
  for (const SteeringEntry& entry : entries) {
    if (ActsOn(entry, block)) AddEntry(hash, entry, block, entry.params.layers);
  }
  return hash.Finish();
}

size_t ActingEntries(std::span<const SteeringEntry> entries, PositionRange block) {
  return static_cast<size_t>(std::ranges::count_if(
      entries, [block](const SteeringEntry& entry) { return ActsOn(entry, block); }));
}

}  // namespace llama_steer
