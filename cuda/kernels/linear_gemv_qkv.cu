// q, k and v in one pass: a block takes 16 dims of a head and the 16 that turn with them, turns
// them, and writes keys and values into their pages.
#include "kernels/linear_gemv.h"

namespace llama_steer::cuda {
namespace {

struct Qkv {
  using Params = QkvLinearParams;
  static constexpr int kParts = 2;
  static constexpr int kValues = 2;  // of the targets; 0: queries, 1: keys

  __host__ __device__ static const LinearParams& LinearOf(const Params& params) {
    return params.linear;
  }
  static int64_t Blocks(const Params& params) { return TilesOf(params.linear, 2 * kGemvOutputs); }
  static __device__ __forceinline__ void Parts(const Params& params, int64_t block,
                                               GemvPart (&parts)[2]) {
    const int32_t pairs = params.rope.pages.head_size / 2;
    const LinearTargetView* target =
        &params.linear.targets[TargetOfTile(params.linear, 2 * kGemvOutputs, block)];
    const int64_t first_pair = block * kGemvOutputs;  // of all heads
    parts[0] = {target, first_pair / pairs * 2 * pairs + first_pair % pairs};
    parts[1] = {target, parts[0].first_output + pairs};
  }
  template <class Weights>
  static __device__ __forceinline__ void Store(const Params& params, const GemvPart (&parts)[2],
                                               int64_t row, int output, const float (&sum)[2]) {
    const LinearTargetView& target = *parts[0].target;
    const int32_t head_size = params.rope.pages.head_size;
    const int64_t dim = parts[0].first_output + output;
    const auto head = static_cast<int32_t>(dim / head_size);
    const auto pair = static_cast<int32_t>(dim % head_size);
    const int64_t which = parts[0].target - params.linear.targets;
    RopePair x = {OutputValue<Weights>(target, dim, sum[0]),
                  OutputValue<Weights>(target, parts[1].first_output + output, sum[1])};
    if (which != kValues) {
      x = Rotated(x, params.rope.turns + row * head_size, pair, head_size / 2);
    }
    if (which == 0) {
      StorePair(x, pair, head_size / 2,
                target.output + row * target.weight.rows + head * head_size);
      return;
    }
    const int32_t block = params.rope.row_blocks[row];
    if (block < 0) return;  // belongs to no sequence
    const int64_t key = KeyIndex(params.rope, row, block, head);
    const int64_t index = which == kValues ? key + kPageTokens * head_size : key;
    if (params.rope.pages.dtype == DType::kF32) {
      StorePair(x, pair, head_size / 2, static_cast<float*>(params.rope.pages.data) + index);
    } else {
      StorePair(x, pair, head_size / 2,
                static_cast<__nv_bfloat16*>(params.rope.pages.data) + index);
    }
  }
};

}  // namespace

cudaError_t LinearGemvQkv(const QkvLinearParams& params, cudaStream_t stream) {
  if (!HasQkvGemv(params.rope.pages.head_size)) return cudaErrorInvalidValue;
  return LaunchGemv<Qkv>(params, stream);
}

}  // namespace llama_steer::cuda
