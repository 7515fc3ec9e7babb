#include "cuda/peaks.h"
#include "device/ptx.h"

namespace llama_steer::cuda::bench {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpThreads;
constexpr int kChains = 8;  // independent sums a warp: more than the depth of the pipeline
constexpr double kFlopOfMma = 2.0 * 16 * 8 * 16;

constexpr int kCopiesOfThread = 4;

__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kThreads) CopyPeakKernel(CopyPeakParams params) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads * kCopiesOfThread + threadIdx.x;
  uint4 values[kCopiesOfThread];
  LLAMA_STEER_UNROLL
  for (int j = 0; j < kCopiesOfThread; ++j) {
    const int64_t i = first + j * kThreads;
    if (i < params.count) values[j] = LoadStreaming(params.from + i);
  }
  LLAMA_STEER_UNROLL
  for (int j = 0; j < kCopiesOfThread; ++j) {
    const int64_t i = first + j * kThreads;
    if (i < params.count) params.to[i] = values[j];
  }
}

__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kThreads) MmaPeakKernel(MmaPeakParams params) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const float seed = params.seed[lane];
  FragmentA a;
  FragmentB b;
  for (int i = 0; i < 4; ++i) {
    a.pair[i] = PackBf16(seed + 0.25f * static_cast<float>(i), -seed);
  }
  for (int i = 0; i < 2; ++i) {
    b.pair[i] = PackBf16(-seed, seed - 0.5f * static_cast<float>(i));
  }
  FragmentD sums[kChains];
  LLAMA_STEER_UNROLL
  for (int chain = 0; chain < kChains; ++chain) {
    for (float& value : sums[chain].value) value = static_cast<float>(chain);
  }
  for (int32_t round = 0; round < params.rounds; ++round) {
    LLAMA_STEER_UNROLL
    for (int chain = 0; chain < kChains; ++chain) MmaBf16(sums[chain], a, b);
  }
  float total = 0.0f;
  LLAMA_STEER_UNROLL
  for (int chain = 0; chain < kChains; ++chain) {
    for (const float value : sums[chain].value) total += value;
  }
  params.sink[static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x] = total;
}

}  // namespace

cudaError_t CopyPeak(const CopyPeakParams& params, cudaStream_t stream) {
  if (params.count == 0) return cudaSuccess;
  constexpr int64_t kOfBlock = int64_t{kThreads} * kCopiesOfThread;
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>((params.count + kOfBlock - 1) / kOfBlock), 1, 1};
  shape.threads = kThreads;
  return Launch<CopyPeakKernel>(shape, stream, params);
}

double MmaPeakFlop(const MmaPeakParams& params) {
  return kFlopOfMma * kChains * kWarps * params.blocks * params.rounds;
}

int64_t MmaPeakSinkValues(const MmaPeakParams& params) {
  return static_cast<int64_t>(params.blocks) * kThreads;
}

cudaError_t MmaPeak(const MmaPeakParams& params, cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(params.blocks), 1, 1};
  shape.threads = kThreads;
  return Launch<MmaPeakKernel>(shape, stream, params);
}

}  // namespace llama_steer::cuda::bench
