#pragma once

#include "backend/backend.h"
#include "kernels/tensors.h"

namespace llama_steer::cuda {

/// output[i, :] = x[rows[i], :], also rounded.
struct GatherRowsParams {
  const float* x = nullptr;
  const int32_t* rows = nullptr;  // [count]
  int32_t count = 0;
  Matrix output;
};
cudaError_t GatherRows(const GatherRowsParams& params, cudaStream_t stream);

/// x.rounded = x.values, for values that no kernel rounded when it wrote them.
struct RoundRowsParams {
  Matrix x;
  int64_t rows = 0;
};
cudaError_t RoundRows(const RoundRowsParams& params, cudaStream_t stream);

/// Whole KV blocks of all layers, in parallel: no block is both a source and a destination.
struct CopyBlocksParams {
  uint4* cache = nullptr;
  const BlockCopy* copies = nullptr;  // [count], in device memory
  int32_t count = 0;
  int32_t layers = 0;
  int64_t layer_vectors = 0;  // 16-byte vectors of one layer
  int64_t block_vectors = 0;  // of one block in one layer
};
cudaError_t CopyBlocks(const CopyBlocksParams& params, cudaStream_t stream);

}  // namespace llama_steer::cuda
