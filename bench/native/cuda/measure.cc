#include "cuda/measure.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "cuda/peaks.h"

namespace llama_steer::cuda::bench {
namespace {

constexpr int kMaxTurns = 64;
constexpr int kLaunchesOfSample = 16;  // short kernels: the gap between two replays counts less
constexpr double kLongLaunchUs = 1000.0;
constexpr int kMinSamples = 5;
constexpr int kMaxSamples = 200;

/// An instantiated graph.
class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() {
    if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
  }
  Status Record(cudaStream_t stream, const std::function<cudaError_t()>& work) {
    LLAMA_STEER_RETURN_IF_ERROR(
        ToStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording"));
    const cudaError_t launched = work();
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
    LLAMA_STEER_RETURN_IF_ERROR(ToStatus(launched, "recording"));
    LLAMA_STEER_RETURN_IF_ERROR(ToStatus(ended, "recording"));
    const cudaError_t made = cudaGraphInstantiate(&exec_, graph, 0);
    cudaGraphDestroy(graph);
    return ToStatus(made, "instantiating a graph");
  }
  cudaError_t Launch(cudaStream_t stream) const { return cudaGraphLaunch(exec_, stream); }

 private:
  cudaGraphExec_t exec_ = nullptr;
};

/// So many sets of buffers that one is long gone from the L2 cache when its turn comes again.
int TurnsOf(const Case& measured, const Gpu& gpu) {
  if (measured.turn_bytes == 0.0) return 1;
  const double turns = 2.0 * static_cast<double>(gpu.l2_bytes) / measured.turn_bytes;
  return static_cast<int>(std::clamp(std::ceil(turns) + 1.0, 2.0, double{kMaxTurns}));
}

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

}  // namespace

StatusOr<Gpu> ThisGpu() {
  cudaDeviceProp properties;
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaSetDevice(0), "the GPU"));
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaGetDeviceProperties(&properties, 0), "the GPU"));
  return Gpu{properties.name, properties.multiProcessorCount, properties.l2CacheSize};
}

StatusOr<std::unique_ptr<Meter>> Meter::Open(const MeasureOptions& options) {
  std::unique_ptr<Meter> meter(new Meter);
  meter->options_ = options;
  StatusOr<Gpu> gpu = ThisGpu();
  if (!gpu.ok()) return gpu.status();
  meter->gpu_ = std::move(gpu).value();
  LLAMA_STEER_RETURN_IF_ERROR(meter->stream_.Create());
  for (cudaEvent_t* event : {&meter->begin_, &meter->end_}) {
    LLAMA_STEER_RETURN_IF_ERROR(
        ToStatus(cudaEventCreateWithFlags(event, cudaEventDefault), "an event"));
  }
  return meter;
}

Meter::~Meter() {
  if (begin_ != nullptr) cudaEventDestroy(begin_);
  if (end_ != nullptr) cudaEventDestroy(end_);
}

/// Microseconds.
StatusOr<double> Meter::TimeOnce(const std::function<cudaError_t()>& work) {
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaEventRecord(begin_, stream_), "timing"));
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(work(), "launching"));
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaEventRecord(end_, stream_), "timing"));
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaEventSynchronize(end_), "running"));
  float milliseconds = 0.0f;
  LLAMA_STEER_RETURN_IF_ERROR(
      ToStatus(cudaEventElapsedTime(&milliseconds, begin_, end_), "timing"));
  return 1e3 * static_cast<double>(milliseconds);
}

StatusOr<Timing> Meter::Time(const Launcher& launch, int turns) {
  const auto once_each = [&] {
    cudaError_t error = cudaSuccess;
    for (int turn = 0; turn < turns && error == cudaSuccess; ++turn) error = launch(turn, stream_);
    return error;
  };
  const bool quick = options_.milliseconds == 0.0;
  StatusOr<double> us = TimeOnce(once_each);  // the first launch loads code
  if (us.ok() && !quick) us = TimeOnce(once_each);
  if (!us.ok()) return us.status();
  const bool is_long = us.value() / turns > kLongLaunchUs;
  const int rounds = quick || is_long ? 1 : std::max(1, kLaunchesOfSample / turns);
  Graph graph;
  LLAMA_STEER_RETURN_IF_ERROR(graph.Record(stream_, [&] {
    cudaError_t error = cudaSuccess;
    for (int round = 0; round < rounds && error == cudaSuccess; ++round) error = once_each();
    return error;
  }));
  const auto replay = [&] { return graph.Launch(stream_); };
  int samples = 1;
  if (!quick) {
    us = TimeOnce(replay);
    if (!us.ok()) return us.status();
    const double wanted = 1e3 * options_.milliseconds / us.value();
    samples = static_cast<int>(std::clamp(wanted, double{kMinSamples}, double{kMaxSamples}));
  }
  Timing timing{.samples = samples, .launches = rounds * turns};
  std::vector<double> each;
  for (int i = 0; i < samples; ++i) {
    us = TimeOnce(replay);
    if (!us.ok()) return us.status();
    each.push_back(us.value() / timing.launches);
  }
  timing.least_us = *std::ranges::min_element(each);
  timing.median_us = Median(std::move(each));
  return timing;
}

StatusOr<Measured> Meter::Measure(const Case& measured) {
  CaseMemory memory(stream_);
  const int turns = TurnsOf(measured, gpu_);
  const Launcher launch = measured.prepare(memory, turns);
  LLAMA_STEER_RETURN_IF_ERROR(memory.status());
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream_), "preparing"));
  StatusOr<Timing> timing = Time(launch, turns);
  if (!timing.ok()) return timing.status();
  return Measured{.kernel = measured.kernel,
                  .variant = measured.variant,
                  .bytes = measured.bytes,
                  .flop = measured.flop,
                  .turns = turns,
                  .timing = timing.value()};
}

StatusOr<Limits> Meter::MeasureLimits(const BenchShape& shape) {
  CaseMemory memory(stream_);
  const auto bytes = static_cast<size_t>(shape.copied_bytes);
  const float* from = memory.Floats(shape.copied_bytes / 4);
  auto* to = memory.Scratch<float>(shape.copied_bytes / 4);
  MmaPeakParams peak;
  peak.seed = memory.Floats(kWarpThreads);
  peak.rounds = shape.mma_rounds;
  peak.blocks = 4 * gpu_.multiprocessors;
  peak.sink = memory.Scratch<float>(MmaPeakSinkValues(peak));
  LLAMA_STEER_RETURN_IF_ERROR(memory.status());
  const StatusOr<Timing> copy = Time(
      [&](int, cudaStream_t stream) {
        return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
      },
      1);
  if (!copy.ok()) return copy.status();
  // Of the driver's copy and a kernel's: either may be the faster one.
  const CopyPeakParams copied{reinterpret_cast<const uint4*>(from), reinterpret_cast<uint4*>(to),
                              static_cast<int64_t>(bytes / sizeof(uint4))};
  const StatusOr<Timing> kernel =
      Time([&](int, cudaStream_t stream) { return CopyPeak(copied, stream); }, 1);
  if (!kernel.ok()) return kernel.status();
  const double copy_us = std::min(copy.value().median_us, kernel.value().median_us);
  const StatusOr<Timing> mma =
      Time([&](int, cudaStream_t stream) { return MmaPeak(peak, stream); }, 1);
  if (!mma.ok()) return mma.status();
  return Limits{.copy_gbps = 2.0 * static_cast<double>(bytes) / copy_us * 1e-3,
                .mma_tflops = MmaPeakFlop(peak) / mma.value().median_us * 1e-6};
}

}  // namespace llama_steer::cuda::bench
