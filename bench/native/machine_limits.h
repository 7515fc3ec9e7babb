// What the machine can do at most: the figures that kernels are measured against. Compiled once a
// target by Highway; include as <machine_limits.h> after defining nothing.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "machine_limits.h"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway asks.
#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace llama_steer::bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Sums `count` floats with plain vector loads, eight independent streams of additions.
inline float ReadAll(const float* HWY_RESTRICT values, size_t count) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  hn::Vec<decltype(d)> sums[8];
  for (auto& sum : sums) sum = hn::Zero(d);
  for (size_t i = 0; i + 8 * lanes <= count; i += 8 * lanes) {
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; ++j) {
      sums[j] = hn::Add(sums[j], hn::LoadU(d, values + i + j * lanes));
    }
  }
  for (int j = 1; j < 8; ++j) sums[0] = hn::Add(sums[0], sums[j]);
  return hn::GetLane(hn::SumOfLanes(d, sums[0]));
}

/// `rounds` times twelve independent multiply-adds; returns the floating-point operations done.
inline double MultiplyAdds(int64_t rounds, float* HWY_RESTRICT sink) {
  const hn::ScalableTag<float> d;
  constexpr int kChains = 12;
  hn::Vec<decltype(d)> acc[kChains];
  for (auto& chain : acc) chain = hn::Set(d, *sink);
  const auto a = hn::Set(d, 1.0f + *sink);
  const auto b = hn::Set(d, *sink);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) acc[j] = hn::MulAdd(acc[j], a, b);
  }
  for (int j = 1; j < kChains; ++j) acc[0] = hn::Add(acc[0], acc[j]);
  *sink = hn::GetLane(hn::SumOfLanes(d, acc[0]));
  return 2.0 * kChains * static_cast<double>(hn::Lanes(d)) * static_cast<double>(rounds);
}

}  // namespace llama_steer::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llama_steer::bench {
HWY_EXPORT(ReadAll);
HWY_EXPORT(MultiplyAdds);
}  // namespace llama_steer::bench
#endif
