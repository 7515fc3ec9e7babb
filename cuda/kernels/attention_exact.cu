// Attention in float32 for pages of any type and heads of any size: one warp a row and query head,
// an online softmax over 32 tokens at a time, a lane a token for the scores and for dims of the
// sum.
#include "device/reduce.h"
#include "kernels/attention.h"

namespace llama_steer::cuda {
namespace {

constexpr int kMaxHeadSize = 256;
constexpr int kDimsOfLane = kMaxHeadSize / kWarpThreads;

__device__ __forceinline__ float Load(const float* from) { return *from; }
__device__ __forceinline__ float Load(const __nv_bfloat16* from) { return __bfloat162float(*from); }

struct Shared {
  float weights[kWarpThreads];
};

template <class Element>
__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kWarpThreads)
    AttentionExactKernel(AttentionExactParams all) {
  const AttentionParams& params = all.common;
  const auto row = static_cast<int32_t>(blockIdx.x);
  const auto head = static_cast<int32_t>(blockIdx.y);
  const auto lane = static_cast<int32_t>(threadIdx.x);
  if (all.row_spans[row] < 0) return;  // belongs to no sequence
  const SequenceSpan span = params.spans[all.row_spans[row]];
  const int32_t position = span.first_position + row - span.first_row;
  const int32_t* block_table = params.block_table + span.block_table_offset;
  const int32_t head_size = params.pages.head_size;
  const int32_t kv_head = head / (params.query_heads / params.pages.kv_heads);
  const int64_t offset = (static_cast<int64_t>(row) * params.query_heads + head) * head_size;
  const float* q = params.q + offset;
  const auto* cache = static_cast<const Element*>(params.pages.data);
  auto& shared = *SharedMemory<Shared>();
  const auto keys_of = [&](int32_t token) {
    return cache +
           params.pages.PageOffset(params.layer, block_table[token / kPageTokens], kv_head) +
           token % kPageTokens * head_size;
  };

  float largest = __uint_as_float(0xff800000u);
  float total = 0.0f;
  float sum[kDimsOfLane] = {};
  for (int32_t first = 0; first <= position; first += kWarpThreads) {
    const int32_t token = first + lane;
    float score = __uint_as_float(0xff800000u);
    if (token <= position) {
      const Element* key = keys_of(token);
      float dot = 0.0f;
      for (int32_t i = 0; i < head_size; ++i) dot = fmaf(q[i], Load(key + i), dot);
      score = dot * params.scale;
    }
    const float before = largest;
    largest = fmaxf(largest, WarpMax(score));
    const float shift = largest == __uint_as_float(0xff800000u) ? 0.0f : largest;
    const float weight = expf(score - shift);
    const float correction = expf(before - shift);
    total = total * correction + WarpSum(weight);
    shared.weights[lane] = weight;
    __syncwarp();
    LLAMA_STEER_UNROLL
    for (int j = 0; j < kDimsOfLane; ++j) sum[j] *= correction;
    const int32_t visible =
        position + 1 - first < kWarpThreads ? position + 1 - first : kWarpThreads;
    for (int32_t t = 0; t < visible; ++t) {
      const Element* value = keys_of(first + t) + kPageTokens * head_size;
      const float p = shared.weights[t];
      LLAMA_STEER_UNROLL
      for (int j = 0; j < kDimsOfLane; ++j) {
        const int32_t dim = j * kWarpThreads + lane;
        if (dim < head_size) sum[j] = fmaf(p, Load(value + dim), sum[j]);
      }
    }
    __syncwarp();
  }
  const int64_t rounded = row * params.rounded_stride + static_cast<int64_t>(head) * head_size;
  LLAMA_STEER_UNROLL
  for (int j = 0; j < kDimsOfLane; ++j) {
    const int32_t dim = j * kWarpThreads + lane;
    if (dim >= head_size) continue;
    const float value = sum[j] / total;
    params.output[offset + dim] = value;
    params.rounded[rounded + dim] = __float2bfloat16_rn(value);
  }
}

}  // namespace

cudaError_t AttentionExact(const AttentionExactParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  if (params.common.pages.head_size > kMaxHeadSize) return cudaErrorInvalidValue;
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(params.rows),
                static_cast<unsigned>(params.common.query_heads), 1};
  shape.threads = kWarpThreads;
  shape.shared_bytes = sizeof(Shared);
  if (params.common.pages.dtype == DType::kF32) {
    return Launch<AttentionExactKernel<float>>(shape, stream, params);
  }
  return Launch<AttentionExactKernel<__nv_bfloat16>>(shape, stream, params);
}

}  // namespace llama_steer::cuda
