#include "backend/cpu/vocabulary_scan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/vocabulary_scan.cc"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway asks.
#include <hwy/highway.h>

#include "backend/cpu/simd_exp.h"
#include "backend/cpu/simd_load.h"
#include "backend/cpu/simd_reduce.h"

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

LargestLogit LargestOf(const float* HWY_RESTRICT logits, size_t size) {
  const DF d;
  const size_t lanes = Lanes();
  VF largest = hn::Set(d, kMinusInfinity);
  VF numbers = hn::Set(d, 1.0f);  // 0 in a lane that met NaN, which equals nothing
  size_t k = 0;
  for (; k + lanes <= size; k += lanes) {
    const VF x = hn::LoadU(d, logits + k);
    largest = hn::Max(x, largest);
    numbers = hn::IfThenElseZero(hn::Eq(x, x), numbers);
  }
  LargestLogit result{hn::GetLane(hn::MaxOfLanes(d, largest)),
                      !hn::AllTrue(d, hn::Gt(numbers, hn::Zero(d)))};
  for (; k < size; ++k) {
    result.nan |= std::isnan(logits[k]);
    result.value = std::max(result.value, logits[k]);
  }
  return result;
}

size_t IndexOf(const float* HWY_RESTRICT logits, size_t size, float value) {
  const DF d;
  const size_t lanes = Lanes();
  const VF wanted = hn::Set(d, value);
  size_t k = 0;
  for (; k + lanes <= size; k += lanes) {
    const auto equal = hn::Eq(hn::LoadU(d, logits + k), wanted);
    if (!hn::AllFalse(d, equal)) break;
  }
  while (k < size && logits[k] != value) ++k;
  return k;
}

/// Blocks in float32, their sums in float64.
double SumOfExp(const float* HWY_RESTRICT logits, size_t size, float largest) {
  const DF d;
  const size_t lanes = Lanes();
  const VF shift = hn::Set(d, largest);
  double total = 0.0;
  size_t k = 0;
  while (k + lanes <= size) {
    VF acc = hn::Zero(d);
    for (size_t end = k + kBlockLogits; k < end && k + lanes <= size; k += lanes) {
      acc = hn::Add(acc, Exponential(d, hn::Sub(hn::LoadU(d, logits + k), shift)));
    }
    total += static_cast<double>(ReduceLanes(acc));
  }
  for (; k < size; ++k) {
    total += std::exp(static_cast<double>(logits[k]) - static_cast<double>(largest));
  }
  return total;
}

float BlockMaximum(const float* HWY_RESTRICT logits, size_t size) {
  return LargestOf(logits, size).value;
}

double BlockWeights(const float* HWY_RESTRICT logits, size_t size, float largest, float temperature,
                    float least, float* HWY_RESTRICT weights) {
  const DF d;
  const size_t lanes = Lanes();
  const auto weight = [&](VF logit) {
    const VF scaled = hn::Div(hn::Sub(logit, hn::Set(d, largest)), hn::Set(d, temperature));
    const VF w = Exponential(d, scaled);
    return hn::IfThenElseZero(hn::Ge(w, hn::Set(d, least)), w);
  };
  VF acc = hn::Zero(d);
  size_t k = 0;
  for (; k + lanes <= size; k += lanes) {
    const VF w = weight(hn::LoadU(d, logits + k));
    hn::StoreU(w, d, weights + k);
    acc = hn::Add(acc, w);
  }
  double sum = static_cast<double>(ReduceLanes(acc));
  if (k < size) {
    HWY_ALIGN float tail[HWY_MAX_BYTES / sizeof(float)];
    hn::Store(weight(LoadTail(d, RowF32{logits}, k, size)), d, tail);
    for (size_t i = k; i < size; ++i) {
      weights[i] = tail[i - k];
      sum += static_cast<double>(weights[i]);
    }
  }
  return sum;
}

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llama_steer::cpu {
namespace {
HWY_EXPORT(LargestOf);
HWY_EXPORT(IndexOf);
HWY_EXPORT(SumOfExp);
HWY_EXPORT(BlockMaximum);
HWY_EXPORT(BlockWeights);
}  // namespace

LargestLogit FindLargest(std::span<const float> logits) {
  return HWY_DYNAMIC_DISPATCH(LargestOf)(logits.data(), logits.size());
}

uint32_t FirstEqual(std::span<const float> logits, float value) {
  return static_cast<uint32_t>(HWY_DYNAMIC_DISPATCH(IndexOf)(logits.data(), logits.size(), value));
}

double SumOfExponentials(std::span<const float> logits, float largest) {
  return HWY_DYNAMIC_DISPATCH(SumOfExp)(logits.data(), logits.size(), largest);
}

void BlockMaxima(std::span<const float> logits, std::span<float> maxima) {
  for (size_t block = 0; block < maxima.size(); ++block) {
    const size_t first = block * kBlockLogits;
    const size_t size = std::min(kBlockLogits, logits.size() - first);
    maxima[block] = HWY_DYNAMIC_DISPATCH(BlockMaximum)(logits.data() + first, size);
  }
}

void SoftmaxWeights(std::span<const float> logits, float largest, float temperature, float least,
                    std::span<float> weights, std::span<double> sums) {
  for (size_t block = 0; block < sums.size(); ++block) {
    const size_t first = block * kBlockLogits;
    const size_t size = std::min(kBlockLogits, logits.size() - first);
    sums[block] = HWY_DYNAMIC_DISPATCH(BlockWeights)(logits.data() + first, size, largest,
                                                     temperature, least, weights.data() + first);
  }
}

}  // namespace llama_steer::cpu
#endif
