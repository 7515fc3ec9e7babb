#include "device/ptx.h"
#include "kernels/silu_mul.h"

namespace llama_steer::cuda {
namespace {

constexpr unsigned kThreads = 256;

__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kThreads) SiluMulKernel(SiluMulParams params) {
  AllowNext();
  WaitForPrior();
  const int64_t row = blockIdx.y;
  const int64_t col = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (col >= params.gate.cols) return;
  const int64_t index = row * params.gate.cols + col;
  const float product = SiluTimes(params.gate.values[index], params.up[index]);
  params.gate.values[index] = product;
  params.gate.rounded[row * params.gate.rounded_stride + col] = __float2bfloat16_rn(product);
}

}  // namespace

cudaError_t SiluMul(const SiluMulParams& params, cudaStream_t stream) {
  if (params.rows == 0 || params.gate.cols == 0) return cudaSuccess;
  LaunchShape shape;
  const int64_t blocks = (params.gate.cols + kThreads - 1) / kThreads;
  shape.grid = {static_cast<unsigned>(blocks), static_cast<unsigned>(params.rows), 1};
  shape.threads = kThreads;
  shape.overlaps = true;
  return Launch<SiluMulKernel>(shape, stream, params);
}

}  // namespace llama_steer::cuda
