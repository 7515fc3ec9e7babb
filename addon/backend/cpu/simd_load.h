// Vector loads of stored types as float32, for files compiled once a target by Highway.
// Include after <hwy/highway.h>, inside a foreach_target file; no include guard but Highway's.
#if defined(LLAMA_STEER_CPU_SIMD_LOAD_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LLAMA_STEER_CPU_SIMD_LOAD_H_
#undef LLAMA_STEER_CPU_SIMD_LOAD_H_
#else
#define LLAMA_STEER_CPU_SIMD_LOAD_H_
#endif

#include <hwy/cache_control.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "backend/cpu/cpu_weight.h"
#include "support/float_types.h"

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

/// Lanes of a float32 vector: the canonical width of every reduction of this target.
HWY_INLINE size_t Lanes() { return hn::Lanes(DF()); }

struct RowF32 {
  const float* row;
  HWY_INLINE VF Load(DF d, size_t k) const { return hn::LoadU(d, row + k); }
  HWY_INLINE float At(size_t k) const { return row[k]; }
  HWY_INLINE const void* Address(size_t k) const { return row + k; }
};

struct RowBF16 {
  const uint16_t* row;
  HWY_INLINE VF Load(DF d, size_t k) const {
    const hn::Rebind<uint16_t, DF> d16;
    const hn::Rebind<uint32_t, DF> d32;
    const auto wide = hn::PromoteTo(d32, hn::LoadU(d16, row + k));
    return hn::BitCast(d, hn::ShiftLeft<16>(wide));
  }
  HWY_INLINE float At(size_t k) const { return FloatFromBf16(row[k]); }
  HWY_INLINE const void* Address(size_t k) const { return row + k; }
};

struct RowF16 {
  const uint16_t* row;
  HWY_INLINE VF Load(DF d, size_t k) const {
    const hn::Rebind<hwy::float16_t, DF> d16;
    return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(row + k)));
  }
  HWY_INLINE float At(size_t k) const { return FloatFromF16(row[k]); }
  HWY_INLINE const void* Address(size_t k) const { return row + k; }
};

/// The product scale * code has at most 15 significant bits: exact in float32.
struct RowInt8 {
  const int8_t* row;
  const uint16_t* scales;
  HWY_INLINE VF Load(DF d, size_t k) const {
    const hn::Rebind<int8_t, DF> d8;
    const hn::Rebind<int32_t, DF> d32;
    const VF codes = hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, row + k)));
    return hn::Mul(codes, hn::Set(d, FloatFromBf16(scales[k / kInt8GroupSize])));
  }
  HWY_INLINE float At(size_t k) const {
    return FloatFromBf16(scales[k / kInt8GroupSize]) * static_cast<float>(row[k]);
  }
  HWY_INLINE const void* Address(size_t k) const { return row + k; }
};

/// Elements [k, end) and zeros behind them, without touching memory past the row.
template <class Row>
HWY_INLINE VF LoadTail(DF d, const Row& row, size_t k, size_t end) {
  HWY_ALIGN float buffer[HWY_MAX_BYTES / sizeof(float)] = {};
  for (size_t i = k; i < end; ++i) buffer[i - k] = row.At(i);
  return hn::Load(d, buffer);
}

/// The one order in which the lanes of an accumulator are added.
HWY_INLINE float ReduceLanes(DF d, VF v) { return hn::GetLane(hn::SumOfLanes(d, v)); }

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
