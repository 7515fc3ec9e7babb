// What the emulator counts, for tests: they find the function in the plugin that they have loaded.
#pragma once

#include <cstdint>

namespace llama_steer::cuda::emulator {

/// Since the process began.
struct EmulatorCounters {
  uint64_t allocations = 0;  // of device memory and of pinned memory
  uint64_t graph_launches = 0;
  uint64_t kernels = 0;      // put on a stream or into a graph
  uint64_t overlapping = 0;  // of these, those that may begin before the one before them has ended
};

inline constexpr const char* kCountersEntryPoint = "llama_steer_emulator_counters";
using CountersFunction = EmulatorCounters (*)();

}  // namespace llama_steer::cuda::emulator
