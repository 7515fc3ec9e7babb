// Gate and up in one pass: a block takes the same 16 outputs of both, and multiplies what they
// give.
#include "kernels/linear_gemv.h"
#include "kernels/silu_mul.h"

namespace llama_steer::cuda {
namespace {

struct Gated {
  using Params = GatedLinearParams;
  static constexpr int kParts = 2;

  __host__ __device__ static const LinearParams& LinearOf(const Params& params) {
    return params.linear;
  }
  static int64_t Blocks(const Params& params) {
    return TilesOf(params.linear.targets[0], kGemvOutputs);
  }
  static __device__ __forceinline__ void Parts(const Params& params, int64_t block,
                                               GemvPart (&parts)[2]) {
    LLAMA_STEER_UNROLL
    for (int p = 0; p < 2; ++p) parts[p] = {&params.linear.targets[p], block * kGemvOutputs};
  }
  template <class Weights>
  static __device__ __forceinline__ void Store(const Params& params, const GemvPart (&parts)[2],
                                               int64_t row, int output, const float (&sum)[2]) {
    const int64_t col = parts[0].first_output + output;
    const float product = SiluTimes(OutputValue<Weights>(*parts[0].target, col, sum[0]),
                                    OutputValue<Weights>(*parts[1].target, col, sum[1]));
    params.output.values[row * params.output.cols + col] = product;
    params.output.rounded[row * params.output.rounded_stride + col] = __float2bfloat16_rn(product);
  }
};

}  // namespace

cudaError_t LinearGemvGated(const GatedLinearParams& params, cudaStream_t stream) {
  return LaunchGemv<Gated>(params, stream);
}

}  // namespace llama_steer::cuda
