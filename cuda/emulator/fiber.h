// A stack and a place to go on from: one thread of a block. Boost.Context switches;
// AddressSanitizer is told of every switch.
#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>

namespace llama_steer::cuda::emulator {

/// Runs `body` over and over: each Resume() goes on until the body yields or returns.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// From the scheduler: runs the fiber until it yields or `body(argument)` returns; a fiber whose
  /// body returned begins anew at the next call.
  void Resume(void (*body)(void*), void* argument);
  /// From inside the fiber: back to the scheduler.
  void Yield();
  bool done() const { return done_; }
  /// Forgets a body that will never return; the next Resume() begins anew.
  void Abandon();

 private:
  static void Entry(boost::context::detail::transfer_t from);
  void SwitchToScheduler();

  void* stack_ = nullptr;  // lowest address, above a guard page
  boost::context::detail::fcontext_t self_ = nullptr;
  boost::context::detail::fcontext_t scheduler_ = nullptr;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool done_ = true;
  // AddressSanitizer's view of both stacks.
  void* own_fake_stack_ = nullptr;
  void* scheduler_fake_stack_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
};

}  // namespace llama_steer::cuda::emulator
