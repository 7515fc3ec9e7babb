#include "device/ptx.h"
#include "kernels/copy_rows.h"

namespace llama_steer::cuda {
namespace {

constexpr unsigned kThreads = 128;

__device__ __forceinline__ void StoreBoth(const Matrix& to, int64_t row, int64_t col, float value) {
  to.values[row * to.cols + col] = value;
  to.rounded[row * to.rounded_stride + col] = __float2bfloat16_rn(value);
}

__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kThreads) GatherRowsKernel(GatherRowsParams params) {
  AllowNext();
  WaitForPrior();
  const int64_t row = blockIdx.x;
  const float* from = params.x + params.rows[row] * params.output.cols;
  for (int64_t i = threadIdx.x; i < params.output.cols; i += blockDim.x) {
    StoreBoth(params.output, row, i, from[i]);
  }
}

__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kThreads) RoundRowsKernel(RoundRowsParams params) {
  const int64_t row = blockIdx.x;
  for (int64_t i = threadIdx.x; i < params.x.cols; i += blockDim.x) {
    params.x.rounded[row * params.x.rounded_stride + i] =
        __float2bfloat16_rn(params.x.values[row * params.x.cols + i]);
  }
}

__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kThreads) CopyBlocksKernel(CopyBlocksParams params) {
  const BlockCopy copy = params.copies[blockIdx.x];
  uint4* layer = params.cache + blockIdx.y * params.layer_vectors;
  const uint4* from = layer + copy.source * params.block_vectors;
  uint4* to = layer + copy.destination * params.block_vectors;
  for (int64_t i = threadIdx.x; i < params.block_vectors; i += blockDim.x) to[i] = from[i];
}

LaunchShape RowsShape(int64_t rows, unsigned y = 1) {
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(rows), y, 1};
  shape.threads = kThreads;
  return shape;
}

}  // namespace

cudaError_t GatherRows(const GatherRowsParams& params, cudaStream_t stream) {
  if (params.count == 0) return cudaSuccess;
  return Launch<GatherRowsKernel>(RowsShape(params.count), stream, params);
}

cudaError_t RoundRows(const RoundRowsParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  return Launch<RoundRowsKernel>(RowsShape(params.rows), stream, params);
}

cudaError_t CopyBlocks(const CopyBlocksParams& params, cudaStream_t stream) {
  if (params.count == 0) return cudaSuccess;
  return Launch<CopyBlocksKernel>(RowsShape(params.count, static_cast<unsigned>(params.layers)),
                                  stream, params);
}

}  // namespace llama_steer::cuda
