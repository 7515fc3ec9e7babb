// Every PTX instruction of the kernels, each beside its twin in C++ for the emulator. The twins
// compute the same function; the order of additions inside one mma is the hardware's own, so the
// two agree to rounding, not to the bit.
#pragma once

#include "device/device.h"

namespace llama_steer::cuda {

/// Two bf16 in one register, the lower index in the lower half.
using Bf16Pair = uint32_t;

/// Fragments of mma.m16n8k16. With g = lane / 4 and c = lane % 4:
///   a[0] = A[g][2c..], a[1] = A[g+8][2c..], a[2] = A[g][2c+8..], a[3] = A[g+8][2c+8..]
///   b[0] = B[2c..][g], b[1] = B[2c+8..][g]
///   d[0..1] = D[g][2c..], d[2..3] = D[g+8][2c..]
struct FragmentA {
  Bf16Pair pair[4];
};
struct FragmentB {
  Bf16Pair pair[2];
};
struct FragmentD {
  float value[4];
};

#ifdef __CUDACC__

/// d += A · B, bf16 products, float32 sums.
__device__ __forceinline__ void MmaBf16(FragmentD& d, const FragmentA& a, const FragmentB& b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d.value[0]), "+f"(d.value[1]), "+f"(d.value[2]), "+f"(d.value[3])
      : "r"(a.pair[0]), "r"(a.pair[1]), "r"(a.pair[2]), "r"(a.pair[3]), "r"(b.pair[0]),
        "r"(b.pair[1]));
}

/// Products of both halves, rounded.
__device__ __forceinline__ Bf16Pair MultiplyBf16(Bf16Pair a, Bf16Pair b) {
  constexpr Bf16Pair kMinusZeros = 0x80008000u;  // compute capability 8.0 has no plain product
  Bf16Pair product;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(a), "r"(b), "r"(kMinusZeros));
  return product;
}

/// Four 8x8 matrices of bf16 from shared memory, each transposed: lane 8m + r gives the address of
/// row r of matrix m (16 bytes, aligned); lane 4g + c receives M[2c][g], M[2c+1][g] of each.
__device__ __forceinline__ void LoadMatrix4Transposed(Bf16Pair (&out)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}

/// Copies 16 bytes from global to shared memory without waiting; zeros when `valid` is false (the
/// source is then not read). Both addresses are aligned to 16 bytes.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, bool valid) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CopyAsyncCommit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Until at most `kPending` of this thread's groups are under way.
template <int kPending>
__device__ __forceinline__ void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// 2^x, about 2 ulp; subnormal results are zero.
__device__ __forceinline__ float Exp2Approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// A 16-byte load that will not be read again soon: weights stream by. Volatile and without .nc, so
/// that the assembler leaves it where it stands, before WaitForPrior().
__device__ __forceinline__ uint4 LoadStreaming(const uint4* address) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(address));
  return v;
}
__device__ __forceinline__ uint2 LoadStreaming(const uint2* address) {
  uint2 v;
  asm volatile("ld.global.L1::no_allocate.v2.u32 {%0,%1}, [%2];"
               : "=r"(v.x), "=r"(v.y)
               : "l"(address));
  return v;
}

/// Lets the kernel after this one begin as soon as all blocks of this one have come here. A no-op
/// for code that is older than compute capability 9.0, which is launched without overlap.
__device__ __forceinline__ void AllowNext() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
/// Until the kernel before this one has ended, and those before it; what they wrote is visible.
__device__ __forceinline__ void WaitForPrior() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Brings the 128 bytes around an address into the second-level cache, without waiting.
__device__ __forceinline__ void PrefetchLine(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

#else

inline void MmaBf16(FragmentD& d, const FragmentA& a, const FragmentB& b) {
  emulator::MmaBf16(d.value, a.pair, b.pair);
}
inline Bf16Pair MultiplyBf16(Bf16Pair a, Bf16Pair b) { return emulator::MultiplyBf16(a, b); }
inline void LoadMatrix4Transposed(Bf16Pair (&out)[4], const void* row) {
  emulator::LoadMatrix4Transposed(out, row);
}
inline void CopyAsync16(void* shared, const void* global, bool valid) {
  emulator::CopyAsync16(shared, global, valid);
}
inline void CopyAsyncCommit() { emulator::CopyAsyncCommit(); }
template <int kPending>
void CopyAsyncWait() {
  emulator::CopyAsyncWait(kPending);
}
inline float Exp2Approx(float x) { return emulator::Exp2Approx(x); }
inline void AllowNext() {}  // the emulator takes it for granted
inline void WaitForPrior() { emulator::WaitForPrior(); }
inline void PrefetchLine(const void* address) { *static_cast<const volatile uint8_t*>(address); }
inline uint4 LoadStreaming(const uint4* address) { return *address; }
inline uint2 LoadStreaming(const uint2* address) { return *address; }

#endif

/// Rounds two floats to bf16, `low` into the lower half.
__device__ __forceinline__ Bf16Pair PackBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return static_cast<uint32_t>(__bfloat16_as_ushort(pair.x)) |
         static_cast<uint32_t>(__bfloat16_as_ushort(pair.y)) << 16;
}

}  // namespace llama_steer::cuda
