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

#if defined(__CUDACC__) || defined(LLAMA_STEER_CUDA_EMULATED)
/// Dims i and i + D/2 of one head, which turn together.
struct RopePair {
  float low;
  float high;
};

/// `turns`: of the row.
__device__ __forceinline__ RopePair Rotated(RopePair x, const float* turns, int32_t i,
                                            int32_t pairs) {
  const float cosine = turns[i];
  const float sine = turns[pairs + i];
  return {x.low * cosine - x.high * sine, x.high * cosine + x.low * sine};
}

/// Index of the row's key of one head in the cache; its value is a page's keys further.
__device__ __forceinline__ int64_t KeyIndex(const RopeAppendParams& params, int64_t row,
                                            int32_t block, int32_t kv_head) {
  const KvPages& pages = params.pages;
  return pages.PageOffset(params.layer, block, kv_head) +
         params.positions[row] % kPageTokens * pages.head_size;
}

__device__ __forceinline__ void StoreElement(float value, float* to) { *to = value; }
__device__ __forceinline__ void StoreElement(float value, __nv_bfloat16* to) {
  *to = __float2bfloat16_rn(value);
}
template <class Element>
__device__ __forceinline__ void StorePair(RopePair pair, int32_t i, int32_t pairs, Element* to) {
  StoreElement(pair.low, to + i);
  StoreElement(pair.high, to + pairs + i);
}
#endif

}  // namespace llama_steer::cuda
