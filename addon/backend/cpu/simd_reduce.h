// Sums of the lanes of many accumulators at once, for files compiled once a target by Highway.
// Include after <hwy/highway.h>, inside a foreach_target file; no include guard but Highway's.
//
// Each accumulator's lanes are added by one fixed tree (i with i + L/2, then i + L/4, …). Doing
// sixteen (eight) accumulators together only shares the shuffles: every sum takes the same pairs.
#if defined(LLAMA_STEER_CPU_SIMD_REDUCE_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LLAMA_STEER_CPU_SIMD_REDUCE_H_
#undef LLAMA_STEER_CPU_SIMD_REDUCE_H_
#else
#define LLAMA_STEER_CPU_SIMD_REDUCE_H_
#endif

#include <hwy/highway.h>

#include "backend/cpu/simd_load.h"

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

#if HWY_TARGET <= HWY_AVX3
/// Accumulators that one SumEach adds.
inline constexpr int kSumEach = 16;

template <int kLow, int kHigh>
HWY_INLINE __m512 FoldBlocks(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, kLow), _mm512_shuffle_f32x4(a, b, kHigh));
}
template <int kLow, int kHigh>
HWY_INLINE __m512 FoldLanes(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, kLow), _mm512_shuffle_ps(a, b, kHigh));
}

/// sums[i] = the lanes of acc[i].
HWY_INLINE void SumEach(const VF (&acc)[kSumEach], float* HWY_RESTRICT sums) {
  __m512 quarter[4];  // quarter[j], block b: four partial sums of acc[4 b + j]
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512 low = FoldBlocks<0x44, 0xEE>(acc[j].raw, acc[4 + j].raw);
    const __m512 high = FoldBlocks<0x44, 0xEE>(acc[8 + j].raw, acc[12 + j].raw);
    quarter[j] = FoldBlocks<0x88, 0xDD>(low, high);
  }
  const __m512 even = FoldLanes<0x44, 0xEE>(quarter[0], quarter[1]);
  const __m512 odd = FoldLanes<0x44, 0xEE>(quarter[2], quarter[3]);
  _mm512_storeu_ps(sums, FoldLanes<0x88, 0xDD>(even, odd));
}
#elif HWY_TARGET == HWY_AVX2
inline constexpr int kSumEach = 8;

template <int kLow, int kHigh>
HWY_INLINE __m256 FoldLanes(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_shuffle_ps(a, b, kLow), _mm256_shuffle_ps(a, b, kHigh));
}

HWY_INLINE void SumEach(const VF (&acc)[kSumEach], float* HWY_RESTRICT sums) {
  __m256 half[4];  // half[j], block b: four partial sums of acc[4 b + j]
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m256 a = acc[j].raw;
    const __m256 b = acc[4 + j].raw;
    half[j] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  }
  const __m256 even = FoldLanes<0x44, 0xEE>(half[0], half[1]);
  const __m256 odd = FoldLanes<0x44, 0xEE>(half[2], half[3]);
  _mm256_storeu_ps(sums, FoldLanes<0x88, 0xDD>(even, odd));
}
#else
inline constexpr int kSumEach = 1;

HWY_INLINE void SumEach(const VF (&acc)[kSumEach], float* HWY_RESTRICT sums) {
  *sums = hn::GetLane(hn::SumOfLanes(DF(), acc[0]));
}
#endif

/// result[i] = the lanes of acc[i], for any number of accumulators.
template <int kCount>
HWY_INLINE void SumLanes(const VF (&acc)[kCount], float* HWY_RESTRICT result) {
  constexpr int kWhole = kCount - kCount % kSumEach;
#pragma GCC unroll 32
  for (int first = 0; first < kWhole; first += kSumEach) {
    VF group[kSumEach];
#pragma GCC unroll 16
    for (int i = 0; i < kSumEach; ++i) group[i] = acc[first + i];
    SumEach(group, result + first);
  }
  if constexpr (kWhole != kCount) {
    VF group[kSumEach];
#pragma GCC unroll 16
    for (int i = 0; i < kSumEach; ++i) {
      group[i] = kWhole + i < kCount ? acc[(kWhole + i) % kCount] : hn::Zero(DF());
    }
    float sums[kSumEach];
    SumEach(group, sums);
    for (int i = kWhole; i < kCount; ++i) result[i] = sums[i - kWhole];
  }
}

/// The lanes of one vector, by Highway's tree. Not to be mixed with SumLanes for one quantity.
HWY_INLINE float ReduceLanes(VF v) { return hn::GetLane(hn::SumOfLanes(DF(), v)); }

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
