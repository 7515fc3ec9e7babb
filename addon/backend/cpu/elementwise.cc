#include "backend/cpu/elementwise.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/elementwise.cc"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway asks.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include "backend/cpu/simd_load.h"

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

HWY_INLINE VF Gated(DF d, VF gate, VF up) {
  const VF denominator = hn::Add(hn::Set(d, 1.0f), hn::Exp(d, hn::Neg(gate)));
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

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llama_steer::cpu {
namespace {
HWY_EXPORT(SiluMulSpan);
constexpr int64_t kValuesPerTask = 16384;
}  // namespace

void Embed(const CpuWeight& table, std::span<const int32_t> token_ids, float* residual,
           ThreadPool& pool) {
  pool.ParallelFor(static_cast<int64_t>(token_ids.size()), [&](int64_t row, int32_t) {
    const int32_t token = token_ids[static_cast<size_t>(row)];
    float* out = residual + row * table.cols;
    for (int64_t k = 0; k < table.cols; ++k) out[k] = WeightAt(table, token, k);
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
