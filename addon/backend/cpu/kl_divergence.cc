#include "backend/cpu/kl_divergence.h"

#include <cmath>
#include <limits>

#include "backend/cpu/vocabulary_scan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/kl_divergence.cc"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway asks.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Sums over the vocabulary, with a = p − max p and b = q − max q.
struct KlSums {
  double p = 0.0;         // Σ exp(a)
  double q = 0.0;         // Σ exp(b)
  double weighted = 0.0;  // Σ exp(a) (a − b)
};

KlSums SumsOf(const float* HWY_RESTRICT p, const float* HWY_RESTRICT q, size_t size, double p_max,
              double q_max) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> narrow;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const V zero = hn::Zero(d);
  V p_sum = zero;
  V q_sum = zero;
  V weighted = zero;
  size_t k = 0;
  for (; k + lanes <= size; k += lanes) {
    const V a = hn::Sub(hn::PromoteTo(d, hn::LoadU(narrow, p + k)), hn::Set(d, p_max));
    const V b = hn::Sub(hn::PromoteTo(d, hn::LoadU(narrow, q + k)), hn::Set(d, q_max));
    const V weight = hn::Exp(d, a);
    p_sum = hn::Add(p_sum, weight);
    q_sum = hn::Add(q_sum, hn::Exp(d, b));
    // Not 0 · ∞ where p has probability 0.
    const V term = hn::Mul(weight, hn::Sub(a, b));
    weighted = hn::Add(weighted, hn::IfThenElse(hn::Gt(weight, zero), term, zero));
  }
  HWY_ALIGN double parts[3][HWY_MAX_BYTES / sizeof(double)];
  hn::Store(p_sum, d, parts[0]);
  hn::Store(q_sum, d, parts[1]);
  hn::Store(weighted, d, parts[2]);
  KlSums sums;
  for (size_t i = 0; i < lanes; ++i) {
    sums.p += parts[0][i];
    sums.q += parts[1][i];
    sums.weighted += parts[2][i];
  }
  for (; k < size; ++k) {
    const double a = static_cast<double>(p[k]) - p_max;
    const double b = static_cast<double>(q[k]) - q_max;
    const double weight = std::exp(a);
    sums.p += weight;
    sums.q += std::exp(b);
    if (weight > 0.0) sums.weighted += weight * (a - b);
  }
  return sums;
}

double DivergenceOf(const float* p, const float* q, size_t size, float p_max, float q_max) {
  const KlSums sums = SumsOf(p, q, size, static_cast<double>(p_max), static_cast<double>(q_max));
  const double kl = sums.weighted / sums.p + (std::log(sums.q) - std::log(sums.p));
  return kl < 0.0 ? 0.0 : kl;  // by rounding
}

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llama_steer::cpu {
namespace {
HWY_EXPORT(DivergenceOf);

bool IsUsable(const LargestLogit& largest) { return !largest.nan && std::isfinite(largest.value); }
}  // namespace

double KlDivergence(std::span<const float> p, std::span<const float> q) {
  const LargestLogit p_max = FindLargest(p);
  const LargestLogit q_max = FindLargest(q);
  if (!IsUsable(p_max) || !IsUsable(q_max)) return std::numeric_limits<double>::quiet_NaN();
  return HWY_DYNAMIC_DISPATCH(DivergenceOf)(p.data(), q.data(), p.size(), p_max.value, q_max.value);
}

}  // namespace llama_steer::cpu
#endif
