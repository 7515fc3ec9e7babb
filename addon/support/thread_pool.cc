#include "support/thread_pool.h"

namespace llama_steer {
namespace {

// A few microseconds: longer than the gap between two ops of a step, shorter than anything that
// would be noticed as load.
constexpr int32_t kSpins = 4000;

// The word `loop_`: workers inside, whether more may join, the loop's number.
constexpr uint64_t kInside = 0xFFFF;
constexpr uint64_t kOpen = kInside + 1;
constexpr uint64_t kNumber = kOpen << 1;

constexpr uint64_t NumberOf(uint64_t loop) { return loop / kNumber; }

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

void ThreadPool::Run(const Task& task) {
  if (threads_ == 1) {
    task(0);
    return;
  }
  Open(task);
  task(0);
  WaitUntil([this] { return served_.load(std::memory_order_acquire) == threads_ - 1; });
  Close();
}

void ThreadPool::ParallelFor(int64_t count, const std::function<void(int64_t, int32_t)>& body) {
  if (threads_ == 1 || count <= 1) {
    for (int64_t index = 0; index < count; ++index) body(index, 0);
    return;
  }
  std::atomic<int64_t> next{0};
  const Task share = [&](int32_t worker) {
    for (;;) {
      const int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      body(index, worker);
    }
  };
  Open(share);
  share(0);
  Close();
}

void ThreadPool::Open(const Task& task) {
  task_ = &task;
  served_.store(0, std::memory_order_relaxed);
  {
    const std::lock_guard lock(mutex_);
    const uint64_t number = NumberOf(loop_.load(std::memory_order_relaxed)) + 1;
    loop_.store(number * kNumber + kOpen, std::memory_order_release);
  }
  wake_.notify_all();
}

void ThreadPool::Close() {
  loop_.fetch_and(~kOpen, std::memory_order_acq_rel);
  WaitUntil([this] { return (loop_.load(std::memory_order_acquire) & kInside) == 0; });
}

template <typename Ended>
void ThreadPool::WaitUntil(const Ended& ended) {
  for (int32_t spin = 0; spin < kSpins; ++spin) {
    if (ended()) return;
    Relax();
  }
  std::unique_lock lock(mutex_);
  left_.wait(lock, ended);
}

void ThreadPool::WorkerLoop(int32_t worker) {
  uint64_t last = 0;
  while (Join(&last)) {
    (*task_)(worker);
    Leave();
  }
}

bool ThreadPool::Join(uint64_t* last) {
  const auto joinable = [&](uint64_t loop) {
    return (loop & kOpen) != 0 && NumberOf(loop) != *last;
  };
  const auto ready = [&] {
    return stop_.load(std::memory_order_acquire) || joinable(loop_.load(std::memory_order_acquire));
  };
  for (;;) {
    for (int32_t spin = 0; spin < kSpins && !ready(); ++spin) Relax();
    if (!ready()) {
      // Any new loop wakes it, also one that is over by then: the next finds it spinning.
      std::unique_lock lock(mutex_);
      const uint64_t number = NumberOf(loop_.load(std::memory_order_acquire));
      wake_.wait(lock, [&] {
        return ready() || NumberOf(loop_.load(std::memory_order_acquire)) != number;
      });
    }
    if (stop_.load(std::memory_order_acquire)) return false;
    uint64_t loop = loop_.load(std::memory_order_acquire);
    while (joinable(loop)) {
      if (!loop_.compare_exchange_weak(loop, loop + 1, std::memory_order_acq_rel)) continue;
      *last = NumberOf(loop);
      return true;
    }
  }
}

void ThreadPool::Leave() {
  served_.fetch_add(1, std::memory_order_acq_rel);
  const uint64_t before = loop_.fetch_sub(1, std::memory_order_acq_rel);
  if ((before & kInside) != 1) return;
  const std::lock_guard lock(mutex_);
  left_.notify_one();
}

}  // namespace llama_steer
