#pragma once

#include "kernels/kv_pages.h"
#include "kernels/tensors.h"

namespace llama_steer::cuda {

/// turns[t] = D / 2 cosines, then as many sines, of position * inverse_frequencies: once a step.
struct RopeTurnsParams {
  const int32_t* positions = nullptr;          // [rows]
  const float* inverse_frequencies = nullptr;  // [pairs]
  int32_t rows = 0;
  int32_t pairs = 0;
  float* turns = nullptr;  // [rows, 2 * pairs]
};
cudaError_t RopeTurns(const RopeTurnsParams& params, cudaStream_t stream);

/// Rotates q and k in place and writes k and v into their pages.
struct RopeAppendParams {
  const float* turns = nullptr;
  const int32_t* positions = nullptr;   // [rows]
  const int32_t* row_blocks = nullptr;  // [rows], the block that holds the row's position
  int32_t rows = 0;
  int32_t query_heads = 0;
  float* q = nullptr;
  float* k = nullptr;
  const float* v = nullptr;
  KvPages pages;
  int32_t layer = 0;
};
cudaError_t RopeAppend(const RopeAppendParams& params, cudaStream_t stream);

}  // namespace llama_steer::cuda
