// What this machine can do at most: bytes read from memory and float32 multiply-adds, on a number
// of threads. Prints one line of JSON; every other benchmark is a ratio to these.
//   bench_machine [threads]
#include <hwy/aligned_allocator.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench_machine.cc"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway asks.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace llama_steer::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Xor of all words: loads and nothing that could hold them up.
uint32_t ReadAll(const uint32_t* HWY_RESTRICT words, size_t count) {
  const hn::ScalableTag<uint32_t> d;
  const size_t lanes = hn::Lanes(d);
  auto a = hn::Zero(d);
  auto b = a;
  auto c = a;
  auto e = a;
  for (size_t i = 0; i + 4 * lanes <= count; i += 4 * lanes) {
    a = hn::Xor(a, hn::Load(d, words + i));
    b = hn::Xor(b, hn::Load(d, words + i + lanes));
    c = hn::Xor(c, hn::Load(d, words + i + 2 * lanes));
    e = hn::Xor(e, hn::Load(d, words + i + 3 * lanes));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Xor(hn::Xor(a, b), hn::Xor(c, e))));
}

/// `rounds` times 12 independent multiply-adds: more than latency times ports of any core here.
/// Each chain starts elsewhere, or the compiler would compute one for all.
float MultiplyAdd(size_t rounds, float seed) {
  const hn::ScalableTag<float> d;
  const auto x = hn::Set(d, 0.999f + seed);
  const auto y = hn::Set(d, 0.001f);
  auto a0 = hn::Iota(d, 0.0f), a1 = hn::Iota(d, 1.0f), a2 = hn::Iota(d, 2.0f);
  auto a3 = hn::Iota(d, 3.0f), a4 = hn::Iota(d, 4.0f), a5 = hn::Iota(d, 5.0f);
  auto a6 = hn::Iota(d, 6.0f), a7 = hn::Iota(d, 7.0f), a8 = hn::Iota(d, 8.0f);
  auto a9 = hn::Iota(d, 9.0f), a10 = hn::Iota(d, 10.0f), a11 = hn::Iota(d, 11.0f);
  for (size_t i = 0; i < rounds; ++i) {
    a0 = hn::MulAdd(a0, x, y);
    a1 = hn::MulAdd(a1, x, y);
    a2 = hn::MulAdd(a2, x, y);
    a3 = hn::MulAdd(a3, x, y);
    a4 = hn::MulAdd(a4, x, y);
    a5 = hn::MulAdd(a5, x, y);
    a6 = hn::MulAdd(a6, x, y);
    a7 = hn::MulAdd(a7, x, y);
    a8 = hn::MulAdd(a8, x, y);
    a9 = hn::MulAdd(a9, x, y);
    a10 = hn::MulAdd(a10, x, y);
    a11 = hn::MulAdd(a11, x, y);
  }
  const auto sum =
      hn::Add(hn::Add(hn::Add(a0, a1), hn::Add(a2, a3)), hn::Add(hn::Add(a4, a5), hn::Add(a6, a7)));
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(sum, hn::Add(hn::Add(a8, a9), hn::Add(a10, a11)))));
}

size_t FloatLanes() { return hn::Lanes(hn::ScalableTag<float>()); }

}  // namespace llama_steer::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llama_steer {
namespace {

HWY_EXPORT(ReadAll);
HWY_EXPORT(MultiplyAdd);
HWY_EXPORT(FloatLanes);

constexpr size_t kBytesPerThread = 256ull << 20;  // far above any cache
constexpr int kPasses = 9;
constexpr size_t kFmaRounds = 8u << 20;
constexpr double kFmaPerRound = 12.0;

/// Seconds of the slowest of `threads` calls that start together.
double Together(int threads, const std::function<void(int)>& body) {
  std::atomic<int> arrived{0};
  std::vector<double> seconds(static_cast<size_t>(threads));
  std::vector<std::thread> workers;
  for (int worker = 0; worker < threads; ++worker) {
    workers.emplace_back([&, worker] {
      arrived.fetch_add(1);
      while (arrived.load() < threads) {
      }
      const auto begin = std::chrono::steady_clock::now();
      body(worker);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      seconds[static_cast<size_t>(worker)] = took.count();
    });
  }
  for (std::thread& worker : workers) worker.join();
  return *std::max_element(seconds.begin(), seconds.end());
}

struct Rates {
  double median;
  double best;
};

Rates RatesOf(double work, std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  return {.median = work / seconds[seconds.size() / 2], .best = work / seconds.front()};
}

Rates MeasureRead(int threads) {
  std::vector<hwy::AlignedFreeUniquePtr<uint32_t[]>> buffers;
  for (int worker = 0; worker < threads; ++worker) {
    buffers.push_back(hwy::AllocateAligned<uint32_t>(kBytesPerThread / sizeof(uint32_t)));
  }
  std::vector<uint32_t> sink(static_cast<size_t>(threads));
  Together(threads, [&](int worker) {
    uint32_t* words = buffers[static_cast<size_t>(worker)].get();
    for (size_t i = 0; i < kBytesPerThread / sizeof(uint32_t); ++i) {
      words[i] = static_cast<uint32_t>(i) * 2654435761u;
    }
  });
  std::vector<double> seconds;
  for (int pass = 0; pass < kPasses; ++pass) {
    seconds.push_back(Together(threads, [&](int worker) {
      const auto index = static_cast<size_t>(worker);
      sink[index] +=
          HWY_DYNAMIC_DISPATCH(ReadAll)(buffers[index].get(), kBytesPerThread / sizeof(uint32_t));
    }));
  }
  // Printed nowhere, but the compiler cannot know: the reads have to happen.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  return RatesOf(static_cast<double>(kBytesPerThread) * threads / 1e9, seconds);
}

Rates MeasureFma(int threads) {
  std::vector<float> sink(static_cast<size_t>(threads));
  std::vector<double> seconds;
  for (int pass = 0; pass < kPasses; ++pass) {
    seconds.push_back(Together(threads, [&](int worker) {
      const float seed = static_cast<float>(worker) * 1e-7f;
      sink[static_cast<size_t>(worker)] += HWY_DYNAMIC_DISPATCH(MultiplyAdd)(kFmaRounds, seed);
    }));
  }
  const auto lanes = static_cast<double>(HWY_DYNAMIC_DISPATCH(FloatLanes)());
  const double flop = 2.0 * kFmaPerRound * lanes * static_cast<double>(kFmaRounds) * threads;
  return RatesOf(flop / 1e9, seconds);
}

int Main(int argc, char** argv) {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  const int threads = argc > 1 ? std::atoi(argv[1]) : cores;
  if (threads < 1 || threads > 1024) {
    std::fprintf(stderr, "usage: bench_machine [threads]\n");
    return 2;
  }
  const Rates read = MeasureRead(threads);
  const Rates fma = MeasureFma(threads);
  const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  std::printf(
      "{\"threads\": %d, \"isa\": \"%s\", \"read_gb_per_s\": %.2f, \"read_gb_per_s_best\": %.2f, "
      "\"fma_gflop_per_s\": %.1f, \"fma_gflop_per_s_best\": %.1f}\n",
      threads, hwy::TargetName(targets & -targets), read.median, read.best, fma.median, fma.best);
  return 0;
}

}  // namespace
}  // namespace llama_steer

int main(int argc, char** argv) { return llama_steer::Main(argc, argv); }
#endif  // HWY_ONCE
