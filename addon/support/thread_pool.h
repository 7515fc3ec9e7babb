// A fixed set of workers for short parallel loops. Idle workers spin briefly, then park: on a small
// machine a spinning worker would starve Node's event loop. A loop does not wait for workers that
// the system has not let run yet: where others use the cores, that would take milliseconds a loop.
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

  /// Calls body(index, worker) for each index in [0, count), handed out one by one. Ends with the
  /// last of them, whether or not every worker has come to help.
  void ParallelFor(int64_t count, const std::function<void(int64_t index, int32_t worker)>& body);

 private:
  using Task = std::function<void(int32_t worker)>;

  void Open(const Task& task);
  void Close();
  /// Until `ended()`, which turns true when a worker leaves.
  template <typename Ended>
  void WaitUntil(const Ended& ended);
  void WorkerLoop(int32_t worker);
  /// Inside an open loop other than `last`, and its number; false: the pool is at its end.
  bool Join(uint64_t* last);
  void Leave();

  const int32_t threads_;
  /// The loop in hand, in one word: its number, whether workers may join, how many are inside. What
  /// belongs to the loop (`task_`, and what it refers to) lives until it is closed and nobody is
  /// inside.
  std::atomic<uint64_t> loop_{0};
  std::atomic<int32_t> served_{0};  // workers that have been inside
  std::atomic<bool> stop_{false};
  const Task* task_ = nullptr;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable left_;
  std::vector<std::thread> workers_;
};

}  // namespace llama_steer
