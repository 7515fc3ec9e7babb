#include "emulator/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace llama_steer::cuda::emulator {
namespace {

// Sanitized frames are larger.
constexpr size_t kStackBytes = 128 << 10;

void StartSwitch([[maybe_unused]] void** save, [[maybe_unused]] const void* stack,
                 [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(save, stack, bytes);
#endif
}

void FinishSwitch([[maybe_unused]] void* saved, [[maybe_unused]] const void** old_stack,
                  [[maybe_unused]] size_t* old_bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(saved, old_stack, old_bytes);
#endif
}

}  // namespace

Fiber::Fiber() {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, kStackBytes + page, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::fprintf(stderr, "emulator: no memory for the stack of a thread\n");
    std::abort();
  }
  mprotect(memory, page, PROT_NONE);
  stack_ = static_cast<char*>(memory) + page;
  Abandon();
}

Fiber::~Fiber() {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  munmap(static_cast<char*>(stack_) - page, kStackBytes + page);
}

void Fiber::Abandon() {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack_, kStackBytes);  // frames that will never be left
#endif
  self_ = boost::context::detail::make_fcontext(static_cast<char*>(stack_) + kStackBytes,
                                                kStackBytes, &Fiber::Entry);
  own_fake_stack_ = nullptr;
  done_ = true;
}

void Fiber::Entry(boost::context::detail::transfer_t from) {
  auto* fiber = static_cast<Fiber*>(from.data);
  FinishSwitch(nullptr, &fiber->scheduler_stack_, &fiber->scheduler_stack_bytes_);
  fiber->scheduler_ = from.fctx;
  for (;;) {
    fiber->body_(fiber->argument_);
    fiber->done_ = true;
    fiber->SwitchToScheduler();
  }
}

void Fiber::Resume(void (*body)(void*), void* argument) {
  if (done_) {
    body_ = body;
    argument_ = argument;
    done_ = false;
  }
  StartSwitch(&scheduler_fake_stack_, stack_, kStackBytes);
  const boost::context::detail::transfer_t back =
      boost::context::detail::jump_fcontext(self_, this);
  FinishSwitch(scheduler_fake_stack_, nullptr, nullptr);
  self_ = back.fctx;
}

void Fiber::Yield() { SwitchToScheduler(); }

void Fiber::SwitchToScheduler() {
  StartSwitch(&own_fake_stack_, scheduler_stack_, scheduler_stack_bytes_);
  const boost::context::detail::transfer_t back =
      boost::context::detail::jump_fcontext(scheduler_, nullptr);
  FinishSwitch(own_fake_stack_, &scheduler_stack_, &scheduler_stack_bytes_);
  scheduler_ = back.fctx;
}

}  // namespace llama_steer::cuda::emulator
