// The calls of the CUDA runtime that the backend uses. Work on a stream is put off until somebody
// waits for it, so that a host that reads or reuses memory too early is found out.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "emulator/arena.h"
#include "emulator/block.h"
#include "emulator/counters.h"

namespace llama_steer::cuda::emulator {
namespace {

/// A kernel, or something else.
struct Work {
  Work(std::shared_ptr<const Kernel> launch) : kernel(std::move(launch)) {}  // NOLINT: implicit
  template <class Function>
  requires std::is_invocable_r_v<cudaError_t, Function> Work(Function function)
      : other(std::move(function)) {}  // NOLINT: implicit
  std::shared_ptr<const Kernel> kernel;
  std::function<cudaError_t()> other;
};
/// Work that waits for its turn.
struct Queued {
  Work work;
  std::unique_ptr<Grid> grid;  // of a kernel that has begun before its turn
};

/// Kernels behind the one that runs which may have begun: each lets the next begin at once.
constexpr size_t kMaxOverlap = 2;

/// One engine drives one device from one thread, but tests may hold several.
std::recursive_mutex& Mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}
#define LLAMA_STEER_EMULATOR_LOCK const std::lock_guard<std::recursive_mutex> lock(Mutex())

/// Read by tests through the library that they load.
EmulatorCounters& Counters() {
  static EmulatorCounters counters;
  return counters;
}

cudaError_t& LastError() {
  static cudaError_t error = cudaSuccess;
  return error;
}
cudaError_t Report(cudaError_t error) {
  if (error != cudaSuccess) LastError() = error;
  return error;
}

}  // namespace
}  // namespace llama_steer::cuda::emulator

// The handles of the runtime API are pointers to these.
struct CUgraph_st {
  std::vector<llama_steer::cuda::emulator::Work> work;
};
struct CUgraphExec_st {
  std::vector<llama_steer::cuda::emulator::Work> work;
};
struct CUstream_st {
  std::deque<llama_steer::cuda::emulator::Queued> queue;
  uint64_t enqueued = 0;
  uint64_t executed = 0;
  std::unique_ptr<CUgraph_st> capture;  // while a graph is recorded
};
struct CUevent_st {
  using Clock = std::chrono::steady_clock;
  cudaStream_t stream = nullptr;               // null: never recorded
  uint64_t after = 0;                          // work items of the stream
  std::shared_ptr<Clock::time_point> reached;  // null: an event without timing
};

namespace llama_steer::cuda::emulator {
namespace {

std::set<CUstream_st*>& Streams() {
  static std::set<CUstream_st*> streams;
  return streams;
}

CUstream_st* StreamOf(cudaStream_t stream) {
  static CUstream_st default_stream;
  if (stream != nullptr) return stream;
  Streams().insert(&default_stream);
  return &default_stream;
}

cudaError_t Enqueue(cudaStream_t handle, Work work) {
  CUstream_st* stream = StreamOf(handle);
  if (stream->capture != nullptr) {
    stream->capture->work.push_back(std::move(work));
    return cudaSuccess;
  }
  stream->queue.push_back({std::move(work), nullptr});
  ++stream->enqueued;
  return cudaSuccess;
}

/// Kernels that follow a kernel at the head of the queue and may overlap it begin.
void BeginNextKernels(CUstream_st* stream) {
  std::deque<Queued>& queue = stream->queue;
  if (queue.front().work.kernel == nullptr) return;
  for (size_t i = 1; i <= kMaxOverlap && i < queue.size(); ++i) {
    const std::shared_ptr<const Kernel>& kernel = queue[i].work.kernel;
    if (kernel == nullptr || !kernel->shape.overlaps) return;
    if (queue[i].grid != nullptr) continue;
    queue[i].grid = std::make_unique<Grid>(kernel);
    queue[i].grid->BeginEarly();
  }
}

cudaError_t Run(Queued item) {
  if (item.work.kernel == nullptr) return item.work.other();
  if (item.grid == nullptr) item.grid = std::make_unique<Grid>(item.work.kernel);
  return item.grid->Run() ? cudaSuccess : cudaErrorLaunchFailure;
}

/// Errors of device work are sticky, as on a device.
cudaError_t RunUntil(CUstream_st* stream, uint64_t count) {
  static cudaError_t broken = cudaSuccess;
  const Arena::Access access(DeviceArena());
  while (stream->executed < count && !stream->queue.empty()) {
    if (broken == cudaSuccess) BeginNextKernels(stream);
    Queued item = std::move(stream->queue.front());
    stream->queue.pop_front();
    ++stream->executed;
    if (broken == cudaSuccess) broken = Run(std::move(item));
  }
  return broken;
}

/// What a device does not do while a stream records.
bool Recording() {
  return std::ranges::any_of(Streams(), [](const CUstream_st* s) { return s->capture != nullptr; });
}

cudaError_t RunAll() {
  cudaError_t error = cudaSuccess;
  StreamOf(nullptr);
  for (CUstream_st* stream : Streams()) {
    const cudaError_t result = RunUntil(stream, stream->enqueued);
    if (error == cudaSuccess) error = result;
  }
  return error;
}

Work CopyWork(void* to, const void* from, size_t bytes) {
  return [=] {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return cudaSuccess;
  };
}

}  // namespace

cudaError_t EnqueueKernel(const KernelShape& shape, cudaStream_t stream,
                          std::function<void()> thread) {
  LLAMA_STEER_EMULATOR_LOCK;
  constexpr unsigned kMaxThreads = 1024;
  constexpr unsigned kMaxGridYz = 65535;
  constexpr size_t kMaxSharedBytes = 227 << 10;
  if (shape.threads == 0 || shape.threads > kMaxThreads || shape.threads % 32 != 0 ||
      shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0 || shape.grid.y > kMaxGridYz ||
      shape.grid.z > kMaxGridYz || shape.shared_bytes > kMaxSharedBytes) {
    std::fprintf(stderr, "emulator: grid %u,%u,%u of %u threads with %zu shared bytes\n",
                 shape.grid.x, shape.grid.y, shape.grid.z, shape.threads, shape.shared_bytes);
    return Report(cudaErrorInvalidConfiguration);
  }
  ++Counters().kernels;
  if (shape.overlaps) ++Counters().overlapping;
  return Enqueue(stream, std::make_shared<const Kernel>(shape, std::move(thread)));
}

}  // namespace llama_steer::cuda::emulator

// NOLINTBEGIN: the names and signatures are CUDA's
using namespace llama_steer::cuda::emulator;

extern "C" {

__attribute__((visibility("default"))) EmulatorCounters llama_steer_emulator_counters() {
  LLAMA_STEER_EMULATOR_LOCK;
  return Counters();
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return Report(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp* properties, int device) {
  if (device != 0) return Report(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "CUDA emulator");
  properties->major = 9;
  properties->multiProcessorCount = 4;  // few, so that work wraps around
  properties->sharedMemPerBlockOptin = 227 << 10;
  properties->totalGlobalMem = DeviceArena().capacity_bytes();
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    default:
      return "an error of the emulator";
  }
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = LastError();
  LastError() = cudaSuccess;
  return error;
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  LLAMA_STEER_EMULATOR_LOCK;
  *free_bytes = DeviceArena().free_bytes();
  *total_bytes = DeviceArena().capacity_bytes();
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** address, size_t bytes) {
  LLAMA_STEER_EMULATOR_LOCK;
  if (Recording()) return Report(cudaErrorStreamCaptureUnsupported);
  ++Counters().allocations;
  *address = DeviceArena().Allocate(bytes);
  return Report(*address == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}
cudaError_t cudaFree(void* address) {
  LLAMA_STEER_EMULATOR_LOCK;
  if (address == nullptr) return cudaSuccess;
  if (Recording()) return Report(cudaErrorStreamCaptureUnsupported);
  const cudaError_t error = RunAll();  // as the real one: after all work
  if (!DeviceArena().Free(address)) return Report(cudaErrorInvalidValue);
  return Report(error);
}
cudaError_t cudaMallocHost(void** address, size_t bytes) {
  LLAMA_STEER_EMULATOR_LOCK;
  if (Recording()) return Report(cudaErrorStreamCaptureUnsupported);
  ++Counters().allocations;
  *address = std::malloc(bytes > 0 ? bytes : 1);
  if (*address == nullptr) return Report(cudaErrorMemoryAllocation);
  std::memset(*address, 0xff, bytes);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* address) {
  LLAMA_STEER_EMULATOR_LOCK;
  const cudaError_t error = RunAll();
  std::free(address);
  return Report(error);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  LLAMA_STEER_EMULATOR_LOCK;
  *stream = new CUstream_st;
  Streams().insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  LLAMA_STEER_EMULATOR_LOCK;
  const cudaError_t error = RunUntil(stream, stream->enqueued);
  Streams().erase(stream);
  delete stream;
  return Report(error);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  LLAMA_STEER_EMULATOR_LOCK;
  CUstream_st* own = StreamOf(stream);
  if (own->capture != nullptr) return Report(cudaErrorStreamCaptureUnsupported);
  return Report(RunUntil(own, own->enqueued));
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  LLAMA_STEER_EMULATOR_LOCK;
  if (event->stream == nullptr) return cudaSuccess;
  CUstream_st* other = event->stream;
  return Report(Enqueue(stream, [other, after = event->after] { return RunUntil(other, after); }));
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new CUevent_st;
  const bool timed = (flags & cudaEventDisableTiming) == 0;
  if (timed) (*event)->reached = std::make_shared<CUevent_st::Clock::time_point>();
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  LLAMA_STEER_EMULATOR_LOCK;
  CUstream_st* own = StreamOf(stream);
  if (event->reached != nullptr) {
    // Nobody reads the clock of the emulator for speed: only that time goes on.
    const cudaError_t error = Enqueue(own, [reached = event->reached] {
      *reached = CUevent_st::Clock::now();
      return cudaSuccess;
    });
    if (error != cudaSuccess) return Report(error);
  }
  event->stream = own;
  event->after = own->enqueued;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  LLAMA_STEER_EMULATOR_LOCK;
  if (event->stream == nullptr) return cudaSuccess;
  return Report(RunUntil(event->stream, event->after));
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  LLAMA_STEER_EMULATOR_LOCK;
  if (begin->reached == nullptr || end->reached == nullptr) {
    return Report(cudaErrorInvalidResourceHandle);
  }
  constexpr CUevent_st::Clock::time_point kNever;
  if (*begin->reached == kNever || *end->reached == kNever) return cudaErrorNotReady;
  using Milliseconds = std::chrono::duration<float, std::milli>;
  *milliseconds = Milliseconds(*end->reached - *begin->reached).count();
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  LLAMA_STEER_EMULATOR_LOCK;
  return Report(Enqueue(stream, CopyWork(to, from, bytes)));
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind, cudaStream_t stream) {
  LLAMA_STEER_EMULATOR_LOCK;
  if (width > to_pitch || width > from_pitch) return Report(cudaErrorInvalidPitchValue);
  return Report(Enqueue(stream, [=] {
    for (size_t row = 0; row < height; ++row) {
      std::memcpy(static_cast<char*>(to) + row * to_pitch,
                  static_cast<const char*>(from) + row * from_pitch, width);
    }
    return cudaSuccess;
  }));
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  LLAMA_STEER_EMULATOR_LOCK;
  return Report(Enqueue(stream, [=] {
    std::memset(to, value, bytes);
    return cudaSuccess;
  }));
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  LLAMA_STEER_EMULATOR_LOCK;
  stream->capture = std::make_unique<CUgraph_st>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  LLAMA_STEER_EMULATOR_LOCK;
  *graph = stream->capture.release();
  return Report(*graph == nullptr ? cudaErrorStreamCaptureInvalidated : cudaSuccess);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  LLAMA_STEER_EMULATOR_LOCK;
  ++Counters().graph_launches;
  for (const Work& work : exec->work) {
    const cudaError_t error = Enqueue(stream, work);
    if (error != cudaSuccess) return Report(error);
  }
  return cudaSuccess;
}

}  // extern "C"
// NOLINTEND
