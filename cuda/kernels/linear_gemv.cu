#include "kernels/linear_gemv.h"

namespace llama_steer::cuda {
namespace {

struct Plain {
  using Params = LinearParams;
  static constexpr int kParts = 1;

  __host__ __device__ static const LinearParams& LinearOf(const Params& params) { return params; }
  static int64_t Blocks(const Params& params) { return TilesOf(params, kGemvOutputs); }
  static __device__ __forceinline__ void Parts(const Params& params, int64_t block,
                                               GemvPart (&parts)[1]) {
    parts[0].target = &params.targets[TargetOfTile(params, kGemvOutputs, block)];
    parts[0].first_output = block * kGemvOutputs;
  }
  template <class Weights>
  static __device__ __forceinline__ void Store(const Params&, const GemvPart (&parts)[1],
                                               int64_t row, int output, const float (&sum)[1]) {
    StoreOutput<Weights>(*parts[0].target, row, parts[0].first_output + output, sum[0]);
  }
};

}  // namespace

cudaError_t LinearGemv(const LinearParams& params, cudaStream_t stream) {
  return LaunchGemv<Plain>(params, stream);
}

}  // namespace llama_steer::cuda
