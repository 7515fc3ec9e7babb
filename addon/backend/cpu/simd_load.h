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

/// Two neighbouring vectors, elements [k, k + 2 L).
struct VectorPair {
  VF first;
  VF second;
};

/// Lanes of a float32 vector: the canonical width of every reduction of this target.
HWY_INLINE size_t Lanes() { return hn::Lanes(DF()); }

struct RowF32 {
  static constexpr size_t kElementBytes = 4;
  const float* row;
  template <class D>
  HWY_INLINE hn::Vec<D> Load(D d, size_t k) const {
    return hn::LoadU(d, row + k);
  }
  HWY_INLINE VectorPair LoadPair(DF d, size_t k) const {
    return {Load(d, k), Load(d, k + Lanes())};
  }
  HWY_INLINE float At(size_t k) const { return row[k]; }
  HWY_INLINE const void* Address(size_t k) const { return row + k; }
};

struct RowBF16 {
  static constexpr size_t kElementBytes = 2;
  const uint16_t* row;
  template <class D>
  HWY_INLINE hn::Vec<D> Load(D d, size_t k) const {
    const hn::Rebind<uint16_t, D> d16;
    const hn::Rebind<uint32_t, D> d32;
    const auto wide = hn::PromoteTo(d32, hn::LoadU(d16, row + k));
    return hn::BitCast(d, hn::ShiftLeft<16>(wide));
  }
  HWY_INLINE VectorPair LoadPair(DF d, size_t k) const {
    return {Load(d, k), Load(d, k + Lanes())};
  }
  HWY_INLINE float At(size_t k) const { return FloatFromBf16(row[k]); }
  HWY_INLINE const void* Address(size_t k) const { return row + k; }
};

struct RowF16 {
  static constexpr size_t kElementBytes = 2;
  const uint16_t* row;
  template <class D>
  HWY_INLINE hn::Vec<D> Load(D d, size_t k) const {
#if HWY_TARGET <= HWY_AVX2 || HWY_TARGET == HWY_NEON
    const hn::Rebind<hwy::float16_t, D> d16;
    return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(row + k)));
#else
    // Where there is no instruction, Highway has no infinities: move exponent and fraction into
    // place and let a multiplication make up for the bias, which also normalises subnormals.
    const hn::Rebind<uint16_t, D> d16;
    const hn::Rebind<uint32_t, D> d32;
    const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, row + k));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(d32, 0x7fffu)));
    const auto finite = hn::BitCast(d32, hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112f)));
    const auto value = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d32, 0x0f800000u)), finite,
                                      hn::Or(magnitude, hn::Set(d32, 0x7f800000u)));
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(d32, 0x8000u)));
    return hn::BitCast(d, hn::Or(value, sign));
#endif
  }
  HWY_INLINE VectorPair LoadPair(DF d, size_t k) const {
    return {Load(d, k), Load(d, k + Lanes())};
  }
  HWY_INLINE float At(size_t k) const { return FloatFromF16(row[k]); }
  HWY_INLINE const void* Address(size_t k) const { return row + k; }
};

/// The product scale * code has at most 15 significant bits: exact in float32.
struct RowInt8 {
  static constexpr size_t kElementBytes = 1;
  const int8_t* row;
  const uint16_t* scales;
  template <class D>
  HWY_INLINE hn::Vec<D> Codes(D d, size_t k) const {
    const hn::Rebind<int8_t, D> d8;
    const hn::Rebind<int32_t, D> d32;
    return hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, row + k)));
  }
  template <class D>
  HWY_INLINE hn::Vec<D> Load(D d, size_t k) const {
    return hn::Mul(Codes(d, k), hn::Set(d, FloatFromBf16(scales[k / kInt8GroupSize])));
  }
  /// k is a multiple of 2 L, so both vectors lie in one group.
  HWY_INLINE VectorPair LoadPair(DF d, size_t k) const {
    const VF scale = hn::Set(d, FloatFromBf16(scales[k / kInt8GroupSize]));
    return {hn::Mul(Codes(d, k), scale), hn::Mul(Codes(d, k + Lanes()), scale)};
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

/// out[k] = row[k] for all k.
template <class Row>
HWY_INLINE void ConvertRow(const Row& row, size_t cols, float* HWY_RESTRICT out) {
  const DF d;
  const size_t lanes = Lanes();
  size_t k = 0;
  for (; k + 2 * lanes <= cols; k += 2 * lanes) {
    const VectorPair pair = row.LoadPair(d, k);
    hn::StoreU(pair.first, d, out + k);
    hn::StoreU(pair.second, d, out + k + lanes);
  }
  for (; k + lanes <= cols; k += lanes) hn::StoreU(row.Load(d, k), d, out + k);
  for (; k < cols; ++k) out[k] = row.At(k);
}

template <class Row>
Row RowOf(const CpuWeight& weight, int64_t row);
template <>
HWY_INLINE RowF32 RowOf(const CpuWeight& weight, int64_t row) {
  return {static_cast<const float*>(weight.data) + row * weight.cols};
}
template <>
HWY_INLINE RowBF16 RowOf(const CpuWeight& weight, int64_t row) {
  return {static_cast<const uint16_t*>(weight.data) + row * weight.cols};
}
template <>
HWY_INLINE RowF16 RowOf(const CpuWeight& weight, int64_t row) {
  return {static_cast<const uint16_t*>(weight.data) + row * weight.cols};
}
template <>
HWY_INLINE RowInt8 RowOf(const CpuWeight& weight, int64_t row) {
  return {static_cast<const int8_t*>(weight.data) + row * weight.cols,
          weight.scales + row * weight.groups_per_row()};
}

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
