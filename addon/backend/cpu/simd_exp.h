// Exponential that is right on every input, for files compiled once a target by Highway.
// Include after <hwy/highway.h>, inside a foreach_target file; no include guard but Highway's.
#if defined(LLAMA_STEER_CPU_SIMD_EXP_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LLAMA_STEER_CPU_SIMD_EXP_H_
#undef LLAMA_STEER_CPU_SIMD_EXP_H_
#else
#define LLAMA_STEER_CPU_SIMD_EXP_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

/// e^x within 1 ulp. Highway's is defined up to 104 only and turns NaN into 0; here large x gives
/// infinity and NaN stays NaN, so that a broken row is seen and not hidden.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> Exponential(D d, hwy::HWY_NAMESPACE::Vec<D> x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const auto bounded = hn::Min(x, hn::Set(d, 89.0f));  // e^89 > FLT_MAX
  return hn::IfThenElse(hn::Eq(x, x), hn::Exp(d, bounded), x);
}

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
