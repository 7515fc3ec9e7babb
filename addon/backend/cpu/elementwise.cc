#include "backend/cpu/elementwise.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/elementwise.cc"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway asks.
#include <hwy/highway.h>

#include "backend/cpu/simd_exp.h"
#include "backend/cpu/simd_load.h"

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

HWY_INLINE VF Gated(DF d, VF gate, VF up) {
  const VF denominator = hn::Add(hn::Set(d, 1.0f), Exponential(d, hn::Neg(gate)));
  return hn::Mul(hn::Div(gate, denominator), up);
}

void SiluMulSpan(float* HWY_RESTRICT gate, const float* HWY_RESTRICT up, size_t count) {
  const DF d;
  const size_t lanes = Lanes();
  size_t k = 0;
  for (; k + lanes <= count; k += lanes) {
    hn::StoreU(Gated(d, hn::LoadU(d, gate + k), hn::LoadU(d, up + k)), d, gate + k);
  }
  if (k < count) {
    HWY_ALIGN float out[HWY_MAX_BYTES / sizeof(float)];
    hn::Store(Gated(d, LoadTail(d, RowF32{gate}, k, count), LoadTail(d, RowF32{up}, k, count)), d,
              out);
    std::copy_n(out, count - k, gate + k);
  }
}

void WeightRow(const CpuWeight& weight, int64_t row, float* out) {
  const auto cols = static_cast<size_t>(weight.cols);
  switch (weight.dtype) {
    case DType::kF32:
      return ConvertRow(RowOf<RowF32>(weight, row), cols, out);
    case DType::kF16:
      return ConvertRow(RowOf<RowF16>(weight, row), cols, out);
    case DType::kBF16:
      return ConvertRow(RowOf<RowBF16>(weight, row), cols, out);
    case DType::kInt8:
      return ConvertRow(RowOf<RowInt8>(weight, row), cols, out);
    case DType::kFp8:
      return;  // MakeCpuWeight makes none
  }
}

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llama_steer::cpu {
namespace {
HWY_EXPORT(SiluMulSpan);
HWY_EXPORT(WeightRow);
constexpr int64_t kValuesPerTask = 16384;
}  // namespace

void Embed(const CpuWeight& table, std::span<const int32_t> token_ids, float* residual,
           ThreadPool& pool) {
  pool.ParallelFor(static_cast<int64_t>(token_ids.size()), [&](int64_t row, int32_t) {
    const int32_t token = token_ids[static_cast<size_t>(row)];
    HWY_DYNAMIC_DISPATCH(WeightRow)(table, token, residual + row * table.cols);
  });
}

void SiluMul(float* gate, const float* up, int64_t count, ThreadPool& pool) {
  const int64_t tasks = (count + kValuesPerTask - 1) / kValuesPerTask;
  pool.ParallelFor(tasks, [&](int64_t index, int32_t) {
    const int64_t first = index * kValuesPerTask;
    const int64_t size = std::min(kValuesPerTask, count - first);
    HWY_DYNAMIC_DISPATCH(SiluMulSpan)(gate + first, up + first, static_cast<size_t>(size));
  });
}

}  // namespace llama_steer::cpu
#endif
