#include "device/ptx.h"
#include "kernels/rope_append.h"

namespace llama_steer::cuda {
namespace {

constexpr unsigned kThreads = 128;

__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kThreads) RopeTurnsKernel(RopeTurnsParams params) {
  const int64_t row = blockIdx.x;
  const auto position = static_cast<float>(params.positions[row]);
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < params.pairs;
       i += static_cast<int32_t>(blockDim.x)) {
    // The angle is float32, as in transformers; its cosine and sine are exact to float32.
    const float angle = position * params.inverse_frequencies[i];
    float* turns = params.turns + row * 2 * params.pairs;
    turns[i] = static_cast<float>(cos(static_cast<double>(angle)));
    turns[params.pairs + i] = static_cast<float>(sin(static_cast<double>(angle)));
  }
}

/// One block a row; a thread takes pairs of the query heads, then of the key heads.
template <class Element>
__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kThreads) RopeAppendKernel(RopeAppendParams params) {
  AllowNext();
  WaitForPrior();
  const int64_t row = blockIdx.x;
  const int32_t head_size = params.pages.head_size;
  const int32_t pairs = head_size / 2;
  const float* turns = params.turns + row * head_size;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const auto threads = static_cast<int32_t>(blockDim.x);
  const auto rotate = [&](float* head, int32_t pair) {
    const RopePair turned = Rotated({head[pair], head[pairs + pair]}, turns, pair, pairs);
    StorePair(turned, pair, pairs, head);
    return turned;
  };

  float* q = params.q + row * params.query_heads * head_size;
  for (int32_t i = thread; i < params.query_heads * pairs; i += threads) {
    rotate(q + i / pairs * head_size, i % pairs);
  }

  const int32_t block = params.row_blocks[row];
  if (block < 0) return;  // belongs to no sequence
  const int64_t kv_offset = row * params.pages.kv_heads * head_size;
  for (int32_t i = thread; i < params.pages.kv_heads * pairs; i += threads) {
    const int32_t kv_head = i / pairs;
    const int32_t pair = i % pairs;
    const float* v = params.v + kv_offset + kv_head * head_size;
    Element* keys =
        static_cast<Element*>(params.pages.data) + KeyIndex(params, row, block, kv_head);
    StorePair(rotate(params.k + kv_offset + kv_head * head_size, pair), pair, pairs, keys);
    StorePair({v[pair], v[pairs + pair]}, pair, pairs, keys + kPageTokens * head_size);
  }
}

LaunchShape RowsShape(int32_t rows, bool overlaps) {
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(rows), 1, 1};
  shape.threads = kThreads;
  shape.overlaps = overlaps;
  return shape;
}

}  // namespace

cudaError_t RopeTurns(const RopeTurnsParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  return Launch<RopeTurnsKernel>(RowsShape(params.rows, false), stream, params);
}

cudaError_t RopeAppend(const RopeAppendParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  if (params.pages.dtype == DType::kF32) {
    return Launch<RopeAppendKernel<float>>(RowsShape(params.rows, true), stream, params);
  }
  return Launch<RopeAppendKernel<__nv_bfloat16>>(RowsShape(params.rows, true), stream, params);
}

}  // namespace llama_steer::cuda
