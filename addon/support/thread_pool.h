// A fixed set of workers for short parallel loops. Idle workers spin briefly, then park: on a small
// machine a spinning worker would starve Node's event loop.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace llama_steer {

class ThreadPool {
 public:
  /// `threads` includes the thread that calls Run.
  explicit ThreadPool(int32_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int32_t threads() const { return threads_; }

  /// Calls task(worker) once for each worker in [0, threads) and returns when all have ended.
  /// Not reentrant; always called from the same thread.
  void Run(const std::function<void(int32_t worker)>& task);

  /// Calls body(index, worker) for each index in [0, count), handed out one by one.
  void ParallelFor(int64_t count, const std::function<void(int64_t index, int32_t worker)>& body);

 private:
  void WorkerLoop(int32_t worker);
  bool WaitForWork(uint64_t seen_generation);

  const int32_t threads_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int32_t> unfinished_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(int32_t)>* task_ = nullptr;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<std::thread> workers_;
};

}  // namespace llama_steer
