// LoRA in float32: output[t, :] += scale · B (A x[t, :]) for the rows of each term.
#pragma once

#include "kernels/tensors.h"

namespace llama_steer::cuda {

struct DeviceLoraTerm {
  WeightView a;             // [rank, inputs]
  WeightView b_transposed;  // [rank, outputs]
  float scale = 1.0f;
  int32_t first_row = 0;
  int32_t row_count = 0;
  float* output = nullptr;   // [T, outputs]
  float* reduced = nullptr;  // [row_count, rank], A x: scratch
};

struct LoraParams {
  const float* x = nullptr;  // [T, inputs]
  const DeviceLoraTerm* terms = nullptr;
  int32_t term_count = 0;
  int32_t max_rows = 0;  // of any term
  int64_t max_rank = 0;
  int64_t max_outputs = 0;
};
cudaError_t AddLora(const LoraParams& params, cudaStream_t stream);

}  // namespace llama_steer::cuda
