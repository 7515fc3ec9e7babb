// float32 and float16 weights, float32 sums: a thread an output, k in rising order.
#include "kernels/linear.h"

namespace llama_steer::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int kRows = 4;  // of x, that share a load of the weight

struct ExactParams {
  const float* x = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  LinearTargetView target;
};

__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kThreads) LinearExactKernel(ExactParams params) {
  const int64_t output = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (output >= params.target.weight.rows) return;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRows;
  const float* x[kRows];
  float sums[kRows];
  LLAMA_STEER_UNROLL
  for (int r = 0; r < kRows; ++r) {
    // Rows past the end repeat the last one and are not stored.
    const int64_t row = first_row + r < params.rows ? first_row + r : params.rows - 1;
    x[r] = params.x + row * params.cols;
    sums[r] = 0.0f;
  }
  WithRow(params.target.weight, output, [&](const auto* weight) {
    for (int64_t k = 0; k < params.cols; ++k) {
      const float w = ToFloat(weight[k]);
      LLAMA_STEER_UNROLL
      for (int r = 0; r < kRows; ++r) sums[r] = fmaf(x[r][k], w, sums[r]);
    }
  });
  const bool biased = params.target.bias.data != nullptr;
  const float bias = biased ? WeightAt(params.target.bias, 0, output) : 0.0f;
  LLAMA_STEER_UNROLL
  for (int r = 0; r < kRows; ++r) {
    if (first_row + r >= params.rows) continue;
    params.target.output[(first_row + r) * params.target.weight.rows + output] =
        biased ? sums[r] + bias : sums[r];
  }
}

}  // namespace

cudaError_t LinearExact(const LinearParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  for (int i = 0; i < params.target_count; ++i) {
    const LinearTargetView& target = params.targets[i];
    LaunchShape shape;
    shape.grid = {static_cast<unsigned>((target.weight.rows + kThreads - 1) / kThreads),
                  static_cast<unsigned>((params.rows + kRows - 1) / kRows), 1};
    shape.threads = kThreads;
    const ExactParams exact{params.x.values, params.rows, params.x.cols, target};
    const cudaError_t error = Launch<LinearExactKernel>(shape, stream, exact);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace llama_steer::cuda
