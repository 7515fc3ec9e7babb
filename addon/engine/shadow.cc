#include "engine/shadow.h"

#include <algorithm>
#include <memory>

namespace llama_steer {
namespace {

/// Position of the first token that a steering changes; kOpenEnd when there is none.
int32_t FirstChanged(const Sequence& sequence) {
  int32_t first = kOpenEnd;
  const std::vector<SteeringEntry>& steering = sequence.request->steering;
  for (size_t i = 0; i < steering.size(); ++i) {
    if (steering[i].inert || sequence.acts[i].empty()) continue;
    first = std::min(first, sequence.acts[i].begin);
  }
  return first;
}

}  // namespace

bool ComparesUnsteered(const RequestState& request) {
  if (!request.spec.compare_unsteered || request.spec.max_new_tokens == 0) return false;
  return std::ranges::any_of(request.steering, [](const SteeringEntry& e) { return !e.inert; });
}

bool NeedsShadow(const Sequence& sequence) {
  return ComparesUnsteered(*sequence.request) && !sequence.request->evaluating() &&
         FirstChanged(sequence) < sequence.context();
}

int32_t SharedEnd(const Sequence& sequence, int32_t block_tokens) {
  return FirstChanged(sequence) / block_tokens * block_tokens;
}

Sequence& ShadowOf(Sequence& sequence) {
  if (!sequence.shadow) {
    auto shadow = std::make_unique<Sequence>();
    shadow->request = sequence.request;
    shadow->is_shadow = true;
    shadow->generated = sequence.generated;
    shadow->acts.resize(sequence.acts.size());
    sequence.shadow = std::move(shadow);
  }
  return *sequence.shadow;
}

}  // namespace llama_steer
