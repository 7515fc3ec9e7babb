// What the sanitizers do in every native test, however it is started.

#define LLAMA_STEER_SANITIZER_OPTIONS extern "C" __attribute__((visibility("default"))) const char*

#if defined(__SANITIZE_ADDRESS__)
// Memory that cannot be had is an error that the tests ask for.
LLAMA_STEER_SANITIZER_OPTIONS __asan_default_options() {
  return "detect_leaks=1:allocator_may_return_null=1";
}
LLAMA_STEER_SANITIZER_OPTIONS __ubsan_default_options() { return "print_stacktrace=1"; }
#elif defined(__SANITIZE_THREAD__)
LLAMA_STEER_SANITIZER_OPTIONS __tsan_default_options() {
  return "halt_on_error=1:allocator_may_return_null=1";
}
#endif
