#include "kernels/embed.h"

namespace llama_steer::cuda {
namespace {

constexpr unsigned kThreads = 128;

__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kThreads) EmbedKernel(EmbedParams params) {
  const int64_t row = blockIdx.x;
  const int32_t drawn = params.drawn == nullptr ? -1 : params.drawn[row];
  const int64_t token = drawn < 0 ? params.token_ids[row] : params.results[drawn].token_id;
  for (int64_t i = threadIdx.x; i < params.residual.cols; i += blockDim.x) {
    params.residual.values[row * params.residual.cols + i] = WeightAt(params.table, token, i);
  }
}

}  // namespace

cudaError_t Embed(const EmbedParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(params.rows), 1, 1};
  shape.threads = kThreads;
  return Launch<EmbedKernel>(shape, stream, params);
}

}  // namespace llama_steer::cuda
