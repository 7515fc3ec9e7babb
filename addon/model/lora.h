// A LoRA adapter in the layout of PEFT: y += scale · B (A x) beside some of the projections.
// Parsed and validated in TypeScript (src/model/adapter.ts), checked against the model here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/llama_config.h"
#include "model/mapped_file.h"
#include "support/status.h"

namespace llama_steer {

/// The projections of a block that an adapter may change.
enum class LoraModule : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr int32_t kLoraModuleCount = 7;

/// One changed projection.
struct LoraTarget {
  int32_t layer = 0;
  LoraModule module = LoraModule::kQ;
  int32_t rank = 0;
  float scale = 1.0f;  // alpha / rank, or alpha / sqrt(rank)
  TensorLocation a;    // [rank, inputs]
  TensorLocation b;    // [outputs, rank]
};

struct LoraFiles {
  std::vector<std::string> paths;  // TensorLocation::file counts in these
  std::vector<LoraTarget> targets;
};

/// The factors of one target, where they lie in the mapped files.
struct LoraFactors {
  int32_t layer = 0;
  LoraModule module = LoraModule::kQ;
  float scale = 1.0f;
  TensorView a;
  TensorView b;
};

/// An adapter's files, mapped and checked; nothing is copied yet.
struct MappedLora {
  LoraFiles source;  // the views' names point into it
  std::vector<MappedFile> files;
  std::vector<LoraFactors> factors;

  uint64_t bytes() const;
  /// Null when the adapter leaves the projection alone.
  const LoraFactors* Find(int32_t layer, LoraModule module) const;
};

/// kInvalidArgument, with the tensor's name, for what does not fit the model, lies outside of its
/// file, occurs twice or is not finite.
StatusOr<MappedLora> MapLora(const LlamaConfig& config, LoraFiles files);

/// An adapter on the device.
class LoraAdapter {
 public:
  /// `lora` may go when it returns.
  static StatusOr<std::unique_ptr<LoraAdapter>> Load(Backend& backend, const LlamaConfig& config,
                                                     const MappedLora& lora);
  /// Null when the adapter leaves the projection alone.
  const LoraWeight* At(int32_t layer, LoraModule module) const;

 private:
  std::vector<std::unique_ptr<LoraWeight>> weights_;  // [layers, kLoraModuleCount]
};

/// Consecutive rows of a step under one adapter.
struct AdapterRows {
  int32_t adapter = 0;  // from LlamaModel::PutAdapter
  int32_t first_row = 0;
  int32_t row_count = 0;
};

}  // namespace llama_steer
