// The LoRA terms of one step, by the place in the layer loop where they are added.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "model/lora.h"

namespace llama_steer {

/// The inputs that the seven projections of a block share.
enum class LoraInput : uint8_t { kAttention, kAttentionOutput, kMlp, kMlpOutput };
inline constexpr size_t kLoraInputCount = 4;

class LoraTerms {
 public:
  /// `outputs` are the projections' own, by LoraModule; `adapters` by AdapterRows::adapter.
  void Build(std::span<const AdapterRows> rows,
             std::span<const std::unique_ptr<LoraAdapter>> adapters,
             const std::array<Activations, kLoraModuleCount>& outputs, int32_t layers);
  /// Valid until Build().
  std::span<const LoraTerm> At(int32_t layer, LoraInput input) const;

 private:
  std::vector<LoraTerm> terms_;
  std::vector<size_t> ends_;  // [layers, kLoraInputCount], in terms_; empty: no row has an adapter
};

}  // namespace llama_steer
