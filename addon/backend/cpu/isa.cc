#include "backend/cpu/isa.h"

#include <hwy/highway.h>

#include <algorithm>
#include <mutex>

namespace llama_steer::cpu {
namespace {

struct NamedTarget {
  const char* name;
  int64_t target;
};

constexpr NamedTarget kTargets[] = {
    {"avx512", HWY_AVX3}, {"avx2", HWY_AVX2},   {"neon", HWY_NEON},       {"sve", HWY_SVE},
    {"sse4", HWY_SSE4},   {"ssse3", HWY_SSSE3}, {"emulated", HWY_EMU128}, {"scalar", HWY_SCALAR},
};

int64_t MachineTargets() {
  static const int64_t targets = [] {
    hwy::SetSupportedTargetsForTest(0);
    return hwy::SupportedTargets() & HWY_TARGETS;
  }();
  return targets;
}

void UseTarget(std::string_view name) {
  int64_t chosen = 0;
  for (const NamedTarget& candidate : kTargets) {
    if (name == candidate.name) chosen = MachineTargets() & candidate.target;
  }
  hwy::SetSupportedTargetsForTest(chosen);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace

std::vector<std::string> AvailableIsas() {
  std::vector<std::string> names;
  for (const NamedTarget& candidate : kTargets) {
    if ((MachineTargets() & candidate.target) != 0) names.emplace_back(candidate.name);
  }
  return names;
}

StatusOr<IsaHold> HoldIsa(std::string_view name) {
  const std::vector<std::string> available = AvailableIsas();
  const bool best = name == "auto" && !available.empty();
  const std::string wanted(best ? std::string_view(available.front()) : name);
  if (std::find(available.begin(), available.end(), wanted) == available.end()) {
    std::string names;
    for (const std::string& isa : available) names += " " + isa;
    return Status::InvalidArgument("cpu_isa \"" + wanted +
                                   "\" is not available here; there are: auto" + names);
  }
  static std::mutex mutex;
  static std::weak_ptr<const std::string> current;
  const std::lock_guard lock(mutex);
  if (IsaHold held = current.lock()) {
    if (*held == wanted) return held;
    return Status::FailedPrecondition("cpu_isa " + wanted +
                                      ": another engine of this process runs " + *held);
  }
  UseTarget(wanted);
  IsaHold hold = std::make_shared<const std::string>(wanted);
  current = hold;
  return hold;
}

}  // namespace llama_steer::cpu
