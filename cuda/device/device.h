// What a kernel is written with: one source that nvcc compiles for a GPU and g++ compiles for the
// emulator. Kernels take one struct of parameters, keep all shared memory in one dynamic block, and
// are started through Launch().
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
// At least one block a multiprocessor: spilling to fit more of them is never worth it here.
#define LLAMA_STEER_LAUNCH_BOUNDS(threads) __launch_bounds__(threads, 1)
#define LLAMA_STEER_UNROLL _Pragma("unroll")
#define LLAMA_STEER_NOINLINE __noinline__
#else
#define LLAMA_STEER_UNROLL
#define LLAMA_STEER_NOINLINE [[gnu::noinline]]
#define LLAMA_STEER_LAUNCH_BOUNDS(threads)
#include "emulator/device_functions.h"
#endif

namespace llama_steer::cuda {

inline constexpr int kWarpThreads = 32;
inline constexpr unsigned kFullMask = 0xffffffffu;

/// Grid, block and dynamic shared memory of one launch.
struct LaunchShape {
  dim3 grid = {1, 1, 1};
  unsigned threads = 1;
  size_t shared_bytes = 0;
  /// The kernel may begin while the one before it on the stream still runs, and may then read
  /// nothing that this one writes, and write nothing, before WaitForPrior() (device/ptx.h).
  bool overlaps = false;
};

/// Off: kernels begin when the one before them has ended. The host calls from one thread.
inline bool& OverlapSwitch() {
  static bool on = true;
  return on;
}

#ifdef __CUDACC__
/// The dynamic shared memory of the block.
template <class T>
__device__ __forceinline__ T* SharedMemory() {
  extern __shared__ __align__(128) unsigned char llama_steer_shared[];
  return reinterpret_cast<T*>(llama_steer_shared);
}

/// Shared memory a block gets without asking for more.
inline constexpr size_t kPlainSharedBytes = 48 << 10;

/// Code for compute capability below 9.0 does not know how to wait, whatever the device.
inline bool KnowsHowToWait(const void* kernel) {
  constexpr int kLeastVersion = 90;
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess &&
         attributes.ptxVersion >= kLeastVersion;
}

template <auto kKernel, class Params>
cudaError_t Launch(const LaunchShape& shape, cudaStream_t stream, const Params& params) {
  const auto* kernel = reinterpret_cast<const void*>(kKernel);
  static size_t allowed_bytes = kPlainSharedBytes;  // the host calls from one thread a device
  if (shape.shared_bytes > allowed_bytes) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes));
    if (error != cudaSuccess) return error;
    allowed_bytes = shape.shared_bytes;
  }
  static const bool knows_how_to_wait = KnowsHowToWait(kernel);
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.threads;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = shape.overlaps && knows_how_to_wait && OverlapSwitch() ? 1 : 0;
  void* arguments[] = {const_cast<Params*>(&params)};
  const cudaError_t error = cudaLaunchKernelExC(&config, kernel, arguments);
  if (error != cudaSuccess) cudaGetLastError();  // it is told; nobody finds it again
  return error;
}
#else
template <class T>
T* SharedMemory() {
  return static_cast<T*>(emulator::SharedMemoryOfBlock());
}

template <auto kKernel, class Params>
cudaError_t Launch(const LaunchShape& shape, cudaStream_t stream, const Params& params) {
  const bool overlaps = shape.overlaps && OverlapSwitch();
  return emulator::EnqueueKernel({shape.grid, shape.threads, shape.shared_bytes, overlaps}, stream,
                                 [params] { kKernel(params); });
}
#endif

}  // namespace llama_steer::cuda
