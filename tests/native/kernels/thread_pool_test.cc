#include "support/thread_pool.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <iterator>
#include <numeric>
#include <set>
#include <string>

namespace llama_steer {
namespace {

TEST(ThreadPoolTest, RunsEachWorkerOnceAndTheCallerIsOneOfThem) {
  for (const int32_t threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    std::vector<std::atomic<int>> calls(static_cast<size_t>(threads));
    std::mutex mutex;
    std::set<std::thread::id> ids;
    pool.Run([&](int32_t worker) {
      ++calls[static_cast<size_t>(worker)];
      const std::lock_guard lock(mutex);
      ids.insert(std::this_thread::get_id());
    });
    for (const auto& count : calls) EXPECT_EQ(count, 1);
    EXPECT_EQ(ids.size(), static_cast<size_t>(threads));
    EXPECT_TRUE(ids.contains(std::this_thread::get_id()));
  }
}

TEST(ThreadPoolTest, HandsOutEveryIndexExactlyOnce) {
  for (const int32_t threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    for (const int64_t count : {0, 1, 2, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
      pool.ParallelFor(count, [&](int64_t index, int32_t worker) {
        EXPECT_LT(worker, threads);
        ++seen[static_cast<size_t>(index)];
      });
      for (const auto& times : seen) EXPECT_EQ(times, 1);
    }
  }
}

TEST(ThreadPoolTest, WhatWorkersWroteIsSeenAfterRun) {
  ThreadPool pool(3);
  std::vector<int64_t> values(3000, 0);  // plain memory: a race is for ThreadSanitizer to see
  for (int64_t round = 1; round <= 2000; ++round) {
    pool.ParallelFor(30, [&](int64_t index, int32_t) {
      for (int64_t i = 0; i < 100; ++i) values[static_cast<size_t>(index * 100 + i)] += 1;
    });
    ASSERT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), 3000 * round);
  }
}

TEST(ThreadPoolTest, WakesWorkersThatParked) {
  ThreadPool pool(2);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than any spin
    std::atomic<int> sum{0};
    pool.Run([&](int32_t worker) { sum += worker + 1; });
    EXPECT_EQ(sum, 3);
  }
}

std::atomic<bool> held{false};
std::atomic<bool> let_go{false};

/// Keeps the thread that it interrupts, as a system does that runs something else.
void HoldThread(int) {
  held.store(true);
  while (!let_go.load()) usleep(100);
}

/// State of a thread of this process: 'S' sleeps.
char StateOf(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const size_t end_of_name = text.rfind(')');
  return end_of_name + 2 < text.size() ? text[end_of_name + 2] : '?';
}

TEST(ThreadPoolTest, ALoopDoesNotWaitForAWorkerThatIsNotLetRun) {
  ThreadPool pool(2);
  pthread_t worker{};
  pid_t worker_id = 0;
  pool.Run([&](int32_t index) {
    if (index == 0) return;
    worker = pthread_self();
    worker_id = gettid();
  });
  while (StateOf(worker_id) != 'S') usleep(1000);
  signal(SIGUSR1, HoldThread);
  ASSERT_EQ(pthread_kill(worker, SIGUSR1), 0);
  while (!held.load()) usleep(100);
  for (int64_t count = 2; count <= 100; ++count) {
    int64_t sum = 0;  // plain memory: the held worker must not touch it
    pool.ParallelFor(count, [&](int64_t index, int32_t) { sum += index; });
    EXPECT_EQ(sum, count * (count - 1) / 2);
  }
  let_go.store(true);
  std::atomic<int> workers{0};
  pool.Run([&](int32_t) { ++workers; });
  EXPECT_EQ(workers, 2);
}

double ProcessorSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

TEST(ThreadPoolTest, AnIdlePoolUsesNoProcessorTime) {
  ThreadPool pool(3);
  pool.Run([](int32_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const double before = ProcessorSeconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(ProcessorSeconds() - before, 0.03);
}

TEST(ThreadPoolTest, CanBeDestroyedAtAnyMoment) {
  for (int round = 0; round < 200; ++round) {
    ThreadPool pool(3);
    if (round % 2 == 0) pool.Run([](int32_t) {});
  }
}

}  // namespace
}  // namespace llama_steer
