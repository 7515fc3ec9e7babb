#include <cmath>
#include <limits>

#include "backend/cpu/sample.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/softmax_stats.cc"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway asks.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "backend/cpu/simd_load.h"

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

float LargestOf(const float* HWY_RESTRICT logits, size_t size) {
  const DF d;
  const size_t lanes = Lanes();
  VF largest = hn::Set(d, -std::numeric_limits<float>::infinity());
  size_t k = 0;
  for (; k + lanes <= size; k += lanes) largest = hn::Max(largest, hn::LoadU(d, logits + k));
  float best = hn::GetLane(hn::MaxOfLanes(d, largest));
  for (; k < size; ++k) best = logits[k] > best ? logits[k] : best;
  return best;
}

/// Σ exp(logit − largest): blocks of 256 in float32, their sums in float64. NaN stays NaN.
double SumOfExp(const float* HWY_RESTRICT logits, size_t size, float largest) {
  const DF d;
  const size_t lanes = Lanes();
  const VF shift = hn::Set(d, largest);
  double total = 0.0;
  size_t k = 0;
  while (k + lanes <= size) {
    VF acc = hn::Zero(d);
    for (size_t end = k + 256; k < end && k + lanes <= size; k += lanes) {
      acc = hn::Add(acc, hn::Exp(d, hn::Sub(hn::LoadU(d, logits + k), shift)));
    }
    total += static_cast<double>(ReduceLanes(d, acc));
  }
  for (; k < size; ++k) {
    total += std::exp(static_cast<double>(logits[k]) - static_cast<double>(largest));
  }
  return total;
}

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llama_steer::cpu {
namespace {
HWY_EXPORT(LargestOf);
HWY_EXPORT(SumOfExp);
}  // namespace

SoftmaxStats ComputeSoftmaxStats(std::span<const float> logits) {
  SoftmaxStats stats;
  stats.largest = HWY_DYNAMIC_DISPATCH(LargestOf)(logits.data(), logits.size());
  if (!std::isfinite(stats.largest)) {
    stats.nonfinite = true;
    return stats;
  }
  const double sum = HWY_DYNAMIC_DISPATCH(SumOfExp)(logits.data(), logits.size(), stats.largest);
  stats.nonfinite = !std::isfinite(sum);
  for (const float logit : logits) stats.nonfinite |= std::isnan(logit);
  stats.log_sum = std::log(sum);
  return stats;
}

}  // namespace llama_steer::cpu
#endif
