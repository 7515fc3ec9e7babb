#include "device/reduce.h"
#include "kernels/lora.h"

namespace llama_steer::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kExpandThreads = 128;

/// A warp a row and a rank: lane l takes k ≡ l (mod 32) in rising order, one fixed tree adds them.
__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kWarps* kWarpThreads)
    LoraShrinkKernel(LoraParams params) {
  const DeviceLoraTerm term = params.terms[blockIdx.z];
  const auto row = static_cast<int64_t>(blockIdx.y);
  const int64_t rank = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpThreads;
  if (row >= term.row_count || rank >= term.a.rows) return;
  const float* x = params.x + (term.first_row + row) * term.a.cols;
  float sum = 0.0f;
  WithRow(term.a, rank, [&](const auto* a) {
    for (int64_t k = threadIdx.x % kWarpThreads; k < term.a.cols; k += kWarpThreads) {
      sum = fmaf(x[k], ToFloat(a[k]), sum);
    }
  });
  sum = WarpSum(sum);
  if (threadIdx.x % kWarpThreads == 0) term.reduced[row * term.a.rows + rank] = sum;
}

/// A thread an output: ranks in rising order.
__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kExpandThreads) LoraExpandKernel(LoraParams params) {
  const DeviceLoraTerm& term = params.terms[blockIdx.z];
  const auto row = static_cast<int64_t>(blockIdx.y);
  const int64_t outputs = term.b_transposed.cols;
  const int64_t output = static_cast<int64_t>(blockIdx.x) * kExpandThreads + threadIdx.x;
  if (row >= term.row_count || output >= outputs) return;
  const float* reduced = term.reduced + row * term.a.rows;
  float sum = 0.0f;
  WithRow(term.b_transposed, 0, [&](const auto* b) {
    for (int64_t k = 0; k < term.a.rows; ++k) {
      sum = fmaf(reduced[k], ToFloat(b[k * outputs + output]), sum);
    }
  });
  float& y = term.output[(term.first_row + row) * outputs + output];
  y = fmaf(term.scale, sum, y);
}

}  // namespace

cudaError_t AddLora(const LoraParams& params, cudaStream_t stream) {
  if (params.term_count == 0 || params.max_rows == 0) return cudaSuccess;
  const auto rows = static_cast<unsigned>(params.max_rows);
  const auto terms = static_cast<unsigned>(params.term_count);
  LaunchShape shrink;
  shrink.grid = {static_cast<unsigned>((params.max_rank + kWarps - 1) / kWarps), rows, terms};
  shrink.threads = kWarps * kWarpThreads;
  const cudaError_t error = Launch<LoraShrinkKernel>(shrink, stream, params);
  if (error != cudaSuccess) return error;
  LaunchShape expand;
  expand.grid = {static_cast<unsigned>((params.max_outputs + kExpandThreads - 1) / kExpandThreads),
                 rows, terms};
  expand.threads = kExpandThreads;
  return Launch<LoraExpandKernel>(expand, stream, params);
}

}  // namespace llama_steer::cuda
