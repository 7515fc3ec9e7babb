// Chooses the device. The CPU backend is part of the addon; others are plugin libraries beside it,
// found at run time, so that the addon links no device library.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "backend/backend.h"
#include "support/status.h"

namespace llama_steer {

/// Raised whenever backend.h changes; a plugin of another version is refused.
inline constexpr int32_t kBackendApiVersion = 4;

/// What a plugin exports as `llama_steer_backend_plugin`, with C linkage.
struct BackendPlugin {
  int32_t api_version;
  /// How well the plugin can run here: 0 = not at all (no driver, no device).
  int32_t (*score)();
  /// Device number -> backend, owned by the caller; null with a message when it cannot be made.
  Backend* (*create)(int32_t device, const char** error);
};

/// `device`: "auto" (a plugin that can run, else the CPU), "cpu", "cuda" or "cuda:N" (an error when
/// it cannot be had). `cpu_isa`, `threads`: see CpuBackendOptions. `why_cpu`, if given: why "auto"
/// came to the CPU, empty when it did not. `plugin_folder`: where plugins lie; empty: beside the
/// binary that this function is part of.
StatusOr<std::unique_ptr<Backend>> CreateBackend(std::string_view device, std::string_view cpu_isa,
                                                 int32_t threads, std::string* why_cpu = nullptr,
                                                 const std::string& plugin_folder = {});

}  // namespace llama_steer
