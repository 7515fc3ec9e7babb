// How blocks that share a tile of outputs bring their sums together. `T`: the tiling of a block,
// with kTilesM x kTilesN fragments a thread, kThreads, and kValues of all.
#pragma once

#include "device/ptx.h"

namespace llama_steer::cuda {

/// Fragments of all threads of a block, `[values / 4, threads, 4]`.
template <class T>
__device__ __forceinline__ float4* PartialOf(float* partial, int m, int n) {
  return reinterpret_cast<float4*>(partial) + (m * T::kTilesN + n) * T::kThreads + threadIdx.x;
}

template <class T>
__device__ __forceinline__ void StorePartial(const FragmentD (&sums)[T::kTilesM][T::kTilesN],
                                             float* partial) {
  LLAMA_STEER_UNROLL
  for (int m = 0; m < T::kTilesM; ++m) {
    LLAMA_STEER_UNROLL
    for (int n = 0; n < T::kTilesN; ++n) {
      const float(&v)[4] = sums[m][n].value;
      *PartialOf<T>(partial, m, n) = {v[0], v[1], v[2], v[3]};
    }
  }
}

/// Whether this block is the last one of its tile to come here. What the others wrote before is
/// visible to it.
__device__ __forceinline__ bool ArrivesLast(unsigned* arrived, int splits) {
  __threadfence();
  __syncthreads();
  unsigned before = 0;
  if (threadIdx.x == 0) before = atomicAdd(arrived, 1u);
  const bool last = __syncthreads_or(before + 1 == static_cast<unsigned>(splits) ? 1 : 0) != 0;
  if (last && threadIdx.x == 0) *arrived = 0;  // for the next launch
  __threadfence();
  return last;
}

/// The sum of the first split, then one slice after the other.
template <class T>
__device__ __forceinline__ void SumPartials(float* partials, int count,
                                            FragmentD (&total)[T::kTilesM][T::kTilesN]) {
  for (int i = 0; i < count; ++i) {
    LLAMA_STEER_UNROLL
    for (int m = 0; m < T::kTilesM; ++m) {
      LLAMA_STEER_UNROLL
      for (int n = 0; n < T::kTilesN; ++n) {
        const float4 v = __ldcg(PartialOf<T>(partials + i * T::kValues, m, n));
        float(&to)[4] = total[m][n].value;
        if (i == 0) {
          total[m][n] = {{v.x, v.y, v.z, v.w}};
        } else {
          to[0] += v.x;
          to[1] += v.y;
          to[2] += v.z;
          to[3] += v.w;
        }
      }
    }
  }
}

}  // namespace llama_steer::cuda
