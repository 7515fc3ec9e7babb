#pragma once

#include "kernels/tensors.h"

namespace llama_steer::cuda {

/// residual[t, :] = table[token_ids[t], :]
struct EmbedParams {
  WeightView table;
  const int32_t* token_ids = nullptr;  // [rows]
  int32_t rows = 0;
  Matrix residual;
};
cudaError_t Embed(const EmbedParams& params, cudaStream_t stream);

}  // namespace llama_steer::cuda
