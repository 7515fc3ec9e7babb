#include "backend/cpu/isa.h"

#include <hwy/highway.h>

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

}  // namespace

std::string IsaName() {
  const int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  for (const NamedTarget& candidate : kTargets) {
    if ((usable & candidate.target) != 0) return candidate.name;
  }
  return hwy::TargetName(usable & -usable);
}

std::vector<std::string> AvailableIsas() {
  std::vector<std::string> names;
  for (const NamedTarget& candidate : kTargets) {
    if ((MachineTargets() & candidate.target) != 0) names.emplace_back(candidate.name);
  }
  return names;
}

Status SelectIsa(std::string_view name) {
  const int64_t machine = MachineTargets();
  int64_t chosen = machine;
  if (name != "auto") {
    chosen = 0;
    for (const NamedTarget& candidate : kTargets) {
      if (name == candidate.name) chosen = machine & candidate.target;
    }
    if (chosen == 0) {
      std::string available;
      for (const std::string& isa : AvailableIsas()) available += " " + isa;
      return Status::InvalidArgument("cpu_isa \"" + std::string(name) +
                                     "\" is not available here; there are: auto" + available);
    }
  }
  hwy::SetSupportedTargetsForTest(chosen);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return Status::Ok();
}

}  // namespace llama_steer::cpu
