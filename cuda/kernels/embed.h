#pragma once

#include "kernels/sample.h"
#include "kernels/tensors.h"

namespace llama_steer::cuda {

/// residual[t, :] = table[token, :], token = token_ids[t] or, where drawn[t] is not negative, what
/// the sampler drew as results[drawn[t]].
struct EmbedParams {
  WeightView table;
  const int32_t* token_ids = nullptr;  // [rows]
  int32_t rows = 0;
  Matrix residual;
  const int32_t* drawn = nullptr;  // [rows]; null: all are negative
  const DeviceSampleResult* results = nullptr;
};
cudaError_t Embed(const EmbedParams& params, cudaStream_t stream);

}  // namespace llama_steer::cuda
