// What the environment turns off.
#pragma once

#include <cstdlib>
#include <string_view>

namespace llama_steer::cuda {

/// Everything is on, but for a variable that says "off".
inline bool IsSwitchedOn(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr || std::string_view(text) != "off";
}

inline constexpr const char* kGraphsVariable = "LLAMA_STEER_CUDA_GRAPHS";
inline constexpr const char* kOverlapVariable = "LLAMA_STEER_CUDA_PDL";
inline constexpr const char* kStepsAheadVariable = "LLAMA_STEER_CUDA_ASYNC_STEPS";

}  // namespace llama_steer::cuda
