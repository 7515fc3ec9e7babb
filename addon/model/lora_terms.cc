#include "model/lora_terms.h"

namespace llama_steer {
namespace {

constexpr LoraModule kAttention[] = {LoraModule::kQ, LoraModule::kK, LoraModule::kV};
constexpr LoraModule kAttentionOutput[] = {LoraModule::kO};
constexpr LoraModule kMlp[] = {LoraModule::kGate, LoraModule::kUp};
constexpr LoraModule kMlpOutput[] = {LoraModule::kDown};
constexpr std::span<const LoraModule> kModules[kLoraInputCount] = {kAttention, kAttentionOutput,
                                                                   kMlp, kMlpOutput};

}  // namespace

void LoraTerms::Build(std::span<const AdapterRows> rows,
                      std::span<const std::unique_ptr<LoraAdapter>> adapters,
                      const std::array<Activations, kLoraModuleCount>& outputs, int32_t layers) {
  terms_.clear();
  ends_.clear();
  if (rows.empty()) return;
  for (int32_t layer = 0; layer < layers; ++layer) {
    for (const std::span<const LoraModule> modules : kModules) {
      for (const AdapterRows& group : rows) {
        const LoraAdapter& adapter = *adapters[static_cast<size_t>(group.adapter)];
        for (const LoraModule module : modules) {
          const LoraWeight* weight = adapter.At(layer, module);
          if (weight == nullptr) continue;
          terms_.push_back({.weight = weight,
                            .first_row = group.first_row,
                            .row_count = group.row_count,
                            .output = outputs[static_cast<size_t>(module)]});
        }
      }
      ends_.push_back(terms_.size());
    }
  }
}

std::span<const LoraTerm> LoraTerms::At(int32_t layer, LoraInput input) const {
  if (ends_.empty()) return {};
  const size_t index = static_cast<size_t>(layer) * kLoraInputCount + static_cast<size_t>(input);
  const size_t begin = index == 0 ? 0 : ends_[index - 1];
  return std::span(terms_).subspan(begin, ends_[index] - begin);
}

}  // namespace llama_steer
