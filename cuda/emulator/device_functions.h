// The part of the CUDA execution model that kernels see, for g++: built-in variables, barriers,
// shuffles, votes, atomics, and the twins of the PTX wrappers. Included by device/device.h only.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#ifndef __forceinline__
#define __forceinline__ inline
#endif

namespace llama_steer::cuda::emulator {

/// What the running fiber knows of itself.
struct ThreadContext {
  uint3 thread_index = {0, 0, 0};
  uint3 block_index = {0, 0, 0};
  dim3 block_size;
  dim3 grid_size;
};
extern const ThreadContext* current_thread;
inline const ThreadContext& Current() { return *current_thread; }

struct KernelShape {
  dim3 grid;
  unsigned threads = 1;
  size_t shared_bytes = 0;
  bool overlaps = false;  // the kernel before it on the stream
};
/// Puts a kernel on a stream (or into the graph that captures it).
cudaError_t EnqueueKernel(const KernelShape& shape, cudaStream_t stream,
                          std::function<void()> thread);
void* SharedMemoryOfBlock();

void SyncThreads();
/// Barrier `id` (1 to 15) of `threads` threads.
void SyncNamedBarrier(int id, int threads);
bool SyncThreadsOr(bool value);
void SyncWarp(unsigned mask);

/// Largest operand of a warp collective.
inline constexpr size_t kOperandBytes = 64;
/// Waits for all lanes of `mask`, each with an operand; afterwards `OperandOf` gives any of them.
void WarpExchange(unsigned mask, const void* operand, size_t bytes);
const void* OperandOf(int lane);
int Lane();

template <class T>
T Shuffle(unsigned mask, T value, int source_lane) {
  static_assert(sizeof(T) <= kOperandBytes && std::is_trivially_copyable_v<T>);
  WarpExchange(mask, &value, sizeof(T));
  const int source = source_lane & 31;
  if (((mask >> source) & 1u) == 0) return value;  // undefined on hardware; harmless here
  T result;
  std::memcpy(&result, OperandOf(source), sizeof(T));
  return result;
}

void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
uint32_t MultiplyBf16(uint32_t a, uint32_t b);
void LoadMatrix4Transposed(uint32_t (&out)[4], const void* row);
/// A copy takes place at any time until it is waited for: see Order.
void CopyAsync16(void* shared, const void* global, bool valid);
void CopyAsyncCommit();
void CopyAsyncWait(int pending);
float Exp2Approx(float x);
/// Until the kernel before has ended. Whoever may overlap it begins as early as Order says.
void WaitForPrior();

}  // namespace llama_steer::cuda::emulator

// NOLINTBEGIN: the names are CUDA's
#define threadIdx (::llama_steer::cuda::emulator::Current().thread_index)
#define blockIdx (::llama_steer::cuda::emulator::Current().block_index)
#define blockDim (::llama_steer::cuda::emulator::Current().block_size)
#define gridDim (::llama_steer::cuda::emulator::Current().grid_size)

namespace llama_steer::cuda {

inline void __syncthreads() { emulator::SyncThreads(); }
inline int __syncthreads_or(int value) { return emulator::SyncThreadsOr(value != 0) ? 1 : 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::SyncWarp(mask); }
template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return emulator::Shuffle(mask, value, lane);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  return emulator::Shuffle(mask, value, emulator::Lane() ^ lane_mask);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  emulator::WarpExchange(mask, &predicate, sizeof(predicate));
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if (((mask >> lane) & 1u) == 0) continue;
    int vote = 0;
    std::memcpy(&vote, emulator::OperandOf(lane), sizeof(vote));
    if (vote != 0) votes |= 1u << lane;
  }
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0 ? 1 : 0;
}

// One fiber runs at a time: an atomic is a plain operation, and every write is seen at once.
inline void __threadfence() {}
template <class T>
T __ldcg(const T* address) {
  return *address;
}
template <class T>
T atomicAdd(T* address, T value) {
  const T old = *address;
  *address = static_cast<T>(old + value);
  return old;
}
template <class T>
T atomicMax(T* address, T value) {
  const T old = *address;
  *address = std::max(old, value);
  return old;
}
template <class T>
T atomicMin(T* address, T value) {
  const T old = *address;
  *address = std::min(old, value);
  return old;
}

inline uint32_t __float_as_uint(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float value = 0.0f;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
}

}  // namespace llama_steer::cuda
// NOLINTEND
