#include "support/thread_pool.h"

namespace llama_steer {
namespace {

// A few microseconds: longer than the gap between two ops of a step, shorter than anything that
// would be noticed as load.
constexpr int32_t kSpins = 4000;

inline void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int32_t threads) : threads_(threads < 1 ? 1 : threads) {
  for (int32_t worker = 1; worker < threads_; ++worker) {
    workers_.emplace_back([this, worker] { WorkerLoop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_.store(true, std::memory_order_release);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(const std::function<void(int32_t)>& task) {
  if (threads_ == 1) {
    task(0);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    task_ = &task;
    unfinished_.store(threads_ - 1, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  task(0);
  for (int32_t spin = 0; spin < kSpins; ++spin) {
    if (unfinished_.load(std::memory_order_acquire) == 0) return;
    Relax();
  }
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return unfinished_.load(std::memory_order_acquire) == 0; });
}

void ThreadPool::ParallelFor(int64_t count, const std::function<void(int64_t, int32_t)>& body) {
  if (threads_ == 1 || count <= 1) {
    for (int64_t index = 0; index < count; ++index) body(index, 0);
    return;
  }
  std::atomic<int64_t> next{0};
  Run([&](int32_t worker) {
    for (;;) {
      const int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      body(index, worker);
    }
  });
}

bool ThreadPool::WaitForWork(uint64_t seen_generation) {
  const auto ready = [&] {
    return stop_.load(std::memory_order_acquire) ||
           generation_.load(std::memory_order_acquire) != seen_generation;
  };
  for (int32_t spin = 0; spin < kSpins && !ready(); ++spin) Relax();
  if (!ready()) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, ready);
  }
  return !stop_.load(std::memory_order_acquire);
}

void ThreadPool::WorkerLoop(int32_t worker) {
  uint64_t seen = 0;
  while (WaitForWork(seen)) {
    ++seen;
    (*task_)(worker);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      const std::lock_guard lock(mutex_);
      done_.notify_one();
    }
  }
}

}  // namespace llama_steer
