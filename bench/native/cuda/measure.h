// Times launches with CUDA events, and puts them beside what the GPU can do at most.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda/case.h"
#include "device_memory.h"

namespace llama_steer::cuda::bench {

struct Gpu {
  std::string name;
  int32_t multiprocessors = 0;
  int64_t l2_bytes = 0;
};
StatusOr<Gpu> ThisGpu();

struct Limits {
  double copy_gbps = 0.0;     // copied within device memory, bytes read and written
  double mma_tflops = 0.0;    // bf16 through mma.sync
  double dense_tflops = 0.0;  // bf16 of a library's large product, measured elsewhere; 0: unknown

  double tflops() const { return dense_tflops > 0.0 ? dense_tflops : mma_tflops; }
};

struct Timing {
  double median_us = 0.0;  // of one launch, over samples
  double least_us = 0.0;
  int32_t samples = 0;
  int32_t launches = 0;  // a sample: one replay of a graph of so many
};

struct Measured {
  std::string kernel;
  std::string variant;
  double bytes = 0.0;
  double flop = 0.0;
  int32_t turns = 0;
  Timing timing;

  double gbps() const { return bytes / timing.median_us * 1e-3; }
  double tflops() const { return flop / timing.median_us * 1e-6; }
  /// The time that the limits leave, as a share of the time it took.
  double share(const Limits& limits) const {
    const double floor_us =
        std::max(bytes / limits.copy_gbps * 1e-3, flop / limits.tflops() * 1e-6);
    return floor_us / timing.median_us;
  }
};

struct MeasureOptions {
  /// Of timed work a case; 0: each case runs once, to see that it does.
  double milliseconds = 60.0;
};

/// Not thread-safe; one at a time.
class Meter {
 public:
  static StatusOr<std::unique_ptr<Meter>> Open(const MeasureOptions& options);
  ~Meter();
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

  const Gpu& gpu() const { return gpu_; }
  /// `dense_tflops` of the result is left at 0.
  StatusOr<Limits> MeasureLimits(const BenchShape& shape);
  StatusOr<Measured> Measure(const Case& measured);

 private:
  Meter() = default;
  StatusOr<Timing> Time(const Launcher& launch, int turns);
  StatusOr<double> TimeOnce(const std::function<cudaError_t()>& work);

  MeasureOptions options_;
  Gpu gpu_;
  Stream stream_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace llama_steer::cuda::bench
