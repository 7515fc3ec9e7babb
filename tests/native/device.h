// Tests that drive a backend are built twice: for the CPU, and for the CUDA plugin beside the
// executable (tests/cuda).
#pragma once

namespace llama_steer::test {

#ifdef LLAMA_STEER_TEST_CUDA
inline constexpr bool kOnCuda = true;
#else
inline constexpr bool kOnCuda = false;
#endif
/// As EngineOptions::device takes it.
inline constexpr const char* kDevice = kOnCuda ? "cuda" : "cpu";

/// Sanitizers make everything some ten times slower; tests that repeat much then repeat less.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace llama_steer::test
