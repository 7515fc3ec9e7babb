// One tile of attention on one warp: 16 rows against 64 tokens in shared memory. Shared by the
// kernels for prompts and for generation, so that both do the same arithmetic.
#pragma once

#include <type_traits>

#include "device/ptx.h"
#include "kernels/attention.h"

namespace llama_steer::cuda {

inline constexpr int kTilePages = kTileTokens / kPageTokens;
inline constexpr int kTokenSteps = kTileTokens / 16;  // k steps of the second product
inline constexpr int kTokenTiles = kTileTokens / 8;   // columns of the first product, by 8
inline constexpr int kTileRows = 16;
inline constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ float MinusInfinity() { return __uint_as_float(0xff800000u); }

/// Calls launch(size) with the head size as a constant, one that the tensor core kernels are built
/// for.
template <class Launcher>
cudaError_t WithHeadSize(int32_t head_size, const Launcher& launch) {
  switch (head_size) {
    case 32:
      return launch(std::integral_constant<int, 32>{});
    case 64:
      return launch(std::integral_constant<int, 64>{});
    case 128:
      return launch(std::integral_constant<int, 128>{});
    default:
      return cudaErrorInvalidValue;
  }
}

/// Keys and values of one tile in shared memory, `[64, D]` each, 16-byte vectors swizzled so that
/// lanes that load together meet no bank twice.
template <int kHeadSize>
struct KvTile {
  static constexpr int kVectors = kHeadSize / 8;  // of a token
  static constexpr int kBytes = 2 * kTileTokens * kHeadSize * 2;
  uint4 keys[kTileTokens * kVectors];
  uint4 values[kTileTokens * kVectors];

  /// For loads of four vectors from each of two neighbouring tokens.
  static __device__ __forceinline__ int KeyIndex(int token, int vector) {
    return token * kVectors + (kVectors >= 8 ? vector ^ ((token & 1) << 2) : vector);
  }
  /// For loads of one vector from each of eight tokens.
  static __device__ __forceinline__ int ValueIndex(int token, int vector) {
    return token * kVectors + (vector ^ (kVectors >= 8 ? token & 7 : token >> 1 & 3));
  }

  /// Starts the copies of tokens [first_token, first_token + 64) by all threads of the block;
  /// tokens from `end` on become zeros.
  __device__ __forceinline__ void Fill(const AttentionParams& params, const int32_t* block_table,
                                       int32_t kv_head, int32_t first_token, int32_t end) {
    const auto* cache = static_cast<const __nv_bfloat16*>(params.pages.data);
    for (int i = static_cast<int>(threadIdx.x); i < kTileTokens * kVectors;
         i += static_cast<int>(blockDim.x)) {
      const int token = i / kVectors;
      const int vector = i % kVectors;
      const bool valid = first_token + token < end;
      const __nv_bfloat16* key = cache;
      if (valid) {
        const int32_t block = block_table[(first_token + token) / kPageTokens];
        key += params.pages.PageOffset(params.layer, block, kv_head) +
               token % kPageTokens * kHeadSize + vector * 8;
      }
      CopyAsync16(&keys[KeyIndex(token, vector)], key, valid);
      CopyAsync16(&values[ValueIndex(token, vector)], key + kPageTokens * kHeadSize, valid);
    }
  }

  /// Whether this thread finds a value that is not finite; threads share the tile.
  __device__ __forceinline__ bool HasBrokenValue() const {
    bool broken = false;
    for (int i = static_cast<int>(threadIdx.x); i < kTileTokens * kVectors;
         i += static_cast<int>(blockDim.x)) {
      const uint32_t words[4] = {values[i].x, values[i].y, values[i].z, values[i].w};
      LLAMA_STEER_UNROLL
      for (int w = 0; w < 4; ++w) {
        broken =
            broken || (words[w] & 0x7f80u) == 0x7f80u || (words[w] & 0x7f800000u) == 0x7f800000u;
      }
    }
    return broken;
  }
};

/// The queries of a warp's 16 rows as operand A, rounded to bf16, chunks of 32 (linear_fragments.h
/// tells how).
template <int kHeadSize>
struct QueryFragments {
  FragmentA a[kHeadSize / 32][2];

  /// `low` and `high`: rows g and g + 8 of q.
  __device__ __forceinline__ void Load(const float* low, const float* high) {
    const int c = static_cast<int>(threadIdx.x) % 4;
    LLAMA_STEER_UNROLL
    for (int chunk = 0; chunk < kHeadSize / 32; ++chunk) {
      const float4* l = reinterpret_cast<const float4*>(low + chunk * 32 + c * 8);
      const float4* h = reinterpret_cast<const float4*>(high + chunk * 32 + c * 8);
      LLAMA_STEER_UNROLL
      for (int half = 0; half < 2; ++half) {
        const float4 x = l[half];
        const float4 y = h[half];
        a[chunk][half] = {
            {PackBf16(x.x, x.y), PackBf16(y.x, y.y), PackBf16(x.z, x.w), PackBf16(y.z, y.w)}};
      }
    }
  }
};

/// scores = q · k for the 8 tokens of column tile `tile`, times scale · log2(e).
template <int kHeadSize>
__device__ __forceinline__ FragmentD ScoreTokens(const QueryFragments<kHeadSize>& query,
                                                 const KvTile<kHeadSize>& kv, int tile,
                                                 float scale) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  FragmentD scores = {{0.0f, 0.0f, 0.0f, 0.0f}};
  LLAMA_STEER_UNROLL
  for (int chunk = 0; chunk < kHeadSize / 32; ++chunk) {
    const uint4 key =
        kv.keys[KvTile<kHeadSize>::KeyIndex(tile * 8 + lane / 4, chunk * 4 + lane % 4)];
    const FragmentB first = {{key.x, key.y}};
    const FragmentB last = {{key.z, key.w}};
    MmaBf16(scores, query.a[chunk][0], first);
    MmaBf16(scores, query.a[chunk][1], last);
  }
  LLAMA_STEER_UNROLL
  for (int i = 0; i < 4; ++i) scores.value[i] *= scale;
  return scores;
}

/// Scores of tokens past the row's own are minus infinity.
__device__ __forceinline__ void MaskScores(FragmentD& scores, int32_t first_token,
                                           const int32_t (&position)[2]) {
  const int c = static_cast<int>(threadIdx.x) % 4;
  LLAMA_STEER_UNROLL
  for (int i = 0; i < 4; ++i) {
    if (first_token + 2 * c + i % 2 > position[i / 2]) scores.value[i] = MinusInfinity();
  }
}

/// Largest of a row over the four lanes that hold it.
__device__ __forceinline__ float QuadMax(float value) {
  value = fmaxf(value, __shfl_xor_sync(kFullMask, value, 1));
  return fmaxf(value, __shfl_xor_sync(kFullMask, value, 2));
}

/// 0 where nothing was visible yet, so that no difference of infinities arises.
__device__ __forceinline__ float Finite(float largest) {
  return largest == MinusInfinity() ? 0.0f : largest;
}

/// The weights of the 16 rows for all 64 tokens, as operand A of the second product.
struct WeightFragments {
  FragmentA a[kTokenSteps];
};

/// acc[i] += weights · values for dims [16 · pair + 8 i, + 8), i = 0, 1.
template <int kHeadSize>
__device__ __forceinline__ void AddValues(FragmentD (&acc)[2], const WeightFragments& weights,
                                          const KvTile<kHeadSize>& kv, int pair) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  LLAMA_STEER_UNROLL
  for (int step = 0; step < kTokenSteps; ++step) {
    Bf16Pair v[4];
    LoadMatrix4Transposed(
        v, &kv.values[KvTile<kHeadSize>::ValueIndex(step * 16 + lane % 16, 2 * pair + lane / 16)]);
    MmaBf16(acc[0], weights.a[step], {{v[0], v[1]}});
    MmaBf16(acc[1], weights.a[step], {{v[2], v[3]}});
  }
}

/// Zero where token `token` (lower half) or `token + 1` (upper half) is not below `visible`.
__device__ __forceinline__ Bf16Pair HidePair(Bf16Pair pair, int token, int visible) {
  return (token < visible ? pair & 0xffffu : 0u) | (token + 1 < visible ? pair & 0xffff0000u : 0u);
}

struct SumPair {
  FragmentD sum[2];
};

/// AddValues for a tile with values that are not finite among tokens that some rows may not see: 0
/// times NaN would reach them. Each row is computed with what it may not see set to zero, which
/// changes no bit of the others. `sees_low`, `sees_high`: tokens that rows g and g + 8 see.
/// By value and never inlined: what is passed by reference could not stay in registers.
template <int kHeadSize>
LLAMA_STEER_NOINLINE __device__ SumPair AddValuesRowByRow(SumPair before, WeightFragments weights,
                                                          const KvTile<kHeadSize>& kv, int pair,
                                                          int32_t sees_low, int32_t sees_high) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int g = lane / 4;
  const int c = lane % 4;
  SumPair after = before;
  for (int row = 0; row < kTileRows; ++row) {
    const int32_t sees = __shfl_sync(kFullMask, row < 8 ? sees_low : sees_high, row % 8 * 4);
    SumPair sums = before;
    for (int step = 0; step < kTokenSteps; ++step) {
      Bf16Pair v[4];
      LoadMatrix4Transposed(
          v,
          &kv.values[KvTile<kHeadSize>::ValueIndex(step * 16 + lane % 16, 2 * pair + lane / 16)]);
      LLAMA_STEER_UNROLL
      for (int i = 0; i < 4; ++i) v[i] = HidePair(v[i], step * 16 + i % 2 * 8 + 2 * c, sees);
      MmaBf16(sums.sum[0], weights.a[step], {{v[0], v[1]}});
      MmaBf16(sums.sum[1], weights.a[step], {{v[2], v[3]}});
    }
    LLAMA_STEER_UNROLL
    for (int i = 0; i < 2; ++i) {
      LLAMA_STEER_UNROLL
      for (int j = 0; j < 2; ++j) {
        if (row == g) after.sum[i].value[j] = sums.sum[i].value[j];
        if (row == g + 8) after.sum[i].value[2 + j] = sums.sum[i].value[2 + j];
      }
    }
  }
  return after;
}

/// Either of the two. `broken` is the same for the whole block.
template <int kHeadSize>
__device__ __forceinline__ void AddVisibleValues(FragmentD& low, FragmentD& high,
                                                 const WeightFragments& weights,
                                                 const KvTile<kHeadSize>& kv, int pair, bool broken,
                                                 int32_t first_token,
                                                 const int32_t (&position)[2]) {
  SumPair sums = {{low, high}};
  if (broken) {
    sums = AddValuesRowByRow(sums, weights, kv, pair, position[0] + 1 - first_token,
                             position[1] + 1 - first_token);
  } else {
    AddValues(sums.sum, weights, kv, pair);
  }
  low = sums.sum[0];
  high = sums.sum[1];
}

/// total += Σ of the rounded weights of each row: a product with ones, so that numerator and
/// denominator add the same numbers in the same order whoever computes them.
__device__ __forceinline__ void AddTotals(FragmentD& total, const WeightFragments& weights) {
  constexpr Bf16Pair kOnes = 0x3f803f80u;
  LLAMA_STEER_UNROLL
  for (int step = 0; step < kTokenSteps; ++step) {
    MmaBf16(total, weights.a[step], {{kOnes, kOnes}});
  }
}

__device__ __forceinline__ void ScaleRows(FragmentD& d, const float (&factor)[2]) {
  LLAMA_STEER_UNROLL
  for (int i = 0; i < 4; ++i) d.value[i] *= factor[i / 2];
}

/// How two splits become one: factors of the earlier and of the later one.
struct MergeFactors {
  float largest;
  float earlier;
  float later;
};
__device__ __forceinline__ MergeFactors Merge(float earlier_largest, float later_largest) {
  const float largest = fmaxf(earlier_largest, later_largest);
  return {largest, Exp2Approx(earlier_largest - largest), Exp2Approx(later_largest - largest)};
}
__device__ __forceinline__ float Merged(const MergeFactors& factors, float earlier, float later) {
  return fmaf(later, factors.later, earlier * factors.earlier);
}

}  // namespace llama_steer::cuda
