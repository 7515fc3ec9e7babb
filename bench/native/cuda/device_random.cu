#include "cuda/device_random.h"

namespace llama_steer::cuda::bench {
namespace {

constexpr unsigned kThreads = 256;
constexpr int64_t kMaxBlocks = 4096;

/// A mix of all bits (the finaliser of MurmurHash3 over a Weyl sequence).
__device__ __forceinline__ uint32_t Hash(uint64_t index, uint32_t seed) {
  uint64_t x = (index + 1) * 0x9e3779b97f4a7c15ull + seed;
  x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
  x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ull;
  return static_cast<uint32_t>(x >> 32);
}

__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kThreads) FillRandomKernel(FillParams params) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (int64_t i = first; i < params.count; i += stride) {
    const uint32_t bits = Hash(static_cast<uint64_t>(i), params.seed);
    const float uniform = static_cast<float>(bits >> 8) * 0x1p-23f - 1.0f;
    const float value = params.offset + uniform * params.scale;
    switch (params.kind) {
      case FillKind::kF32:
        static_cast<float*>(params.data)[i] = value;
        break;
      case FillKind::kBf16:
        static_cast<__nv_bfloat16*>(params.data)[i] = __float2bfloat16_rn(value);
        break;
      case FillKind::kBytes: {
        const auto code = static_cast<uint8_t>(bits >> 24);
        const bool nan = (code & 0x7fu) == 0x7fu;
        static_cast<uint8_t*>(params.data)[i] = nan ? static_cast<uint8_t>(code - 1) : code;
        break;
      }
    }
  }
}

}  // namespace

cudaError_t FillRandom(const FillParams& params, cudaStream_t stream) {
  if (params.count == 0) return cudaSuccess;
  const int64_t blocks = (params.count + kThreads - 1) / kThreads;
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks), 1, 1};
  shape.threads = kThreads;
  return Launch<FillRandomKernel>(shape, stream, params);
}

}  // namespace llama_steer::cuda::bench
