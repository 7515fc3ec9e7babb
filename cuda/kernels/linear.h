// Projections y = x · Wᵀ + b.
//
// bf16, int8 and fp8 weights go to the tensor cores with x rounded to bf16. One order of summation
// for every shape and every number of rows: k is cut into slices of 512; a slice is one accumulator
// to which chunks of 32 are added in rising order; slices are added in rising order. The kernel for
// few rows gives each slice to a warp, the kernel for many adds up slice after slice, and both use
// the same instruction on the same operands, so a row has the same bits in every batch.
//
// int8 and fp8 are widened to bf16 in registers, which is exact. A group of int8 is scaled when its
// products are added; a row of fp8 once, when its sum is stored.
//
// float32 and float16 weights are multiplied in float32 without rounding x: exact, and slow.
#pragma once

#include "kernels/rope_append.h"
#include "kernels/tensors.h"

namespace llama_steer::cuda {

inline constexpr int kMaxLinearTargets = 3;

struct LinearTargetView {
  WeightView weight;
  WeightView bias;          // data null: none
  float* output = nullptr;  // [rows, weight.rows]
};

/// Several projections of the same rows; all weights have one type.
struct LinearParams {
  Matrix x;
  int64_t rows = 0;
  int32_t target_count = 0;
  LinearTargetView targets[kMaxLinearTargets];
};

/// For bf16, int8 and fp8, up to kMaxGemvRows rows: weights stream from memory once.
inline constexpr int64_t kMaxGemvRows = 16;
cudaError_t LinearGemv(const LinearParams& params, cudaStream_t stream);
/// The same for projections that what follows is taken together with, which gives the same bits.
/// targets: gate and up, of one size; output = silu(gate) * up, also rounded.
struct GatedLinearParams {
  LinearParams linear;
  Matrix output;
};
cudaError_t LinearGemvGated(const GatedLinearParams& params, cudaStream_t stream);
/// targets: q, k and v, whose heads LinearGemvQkv takes. Rotated, q goes to its target, k and v to
/// the cache only.
struct QkvLinearParams {
  LinearParams linear;
  RopeAppendParams rope;
};
cudaError_t LinearGemvQkv(const QkvLinearParams& params, cudaStream_t stream);
/// A block takes 16 dims and those that turn with them.
constexpr bool HasQkvGemv(int32_t head_size) { return head_size % 32 == 0; }

/// How many blocks share the slices of a tile of outputs, and where they leave their sums.
struct LinearSplit {
  int32_t count = 1;
  int32_t slices_of_one = 0;  // the last block may have fewer
  int32_t slices = 0;         // of a tile
  int32_t tiles = 0;
  float* partials = nullptr;    // partial_bytes()
  unsigned* arrived = nullptr;  // [tiles], zeros before and after

  /// One of the first block, and one of each slice of the others.
  __host__ __device__ int32_t PartialsOfTile() const { return 1 + slices - slices_of_one; }
  size_t partial_bytes() const;
};
/// For a device of so many multiprocessors. count 1: no memory is needed. No bit depends on it.
LinearSplit SplitOf(const LinearParams& params, int32_t multiprocessors);

struct LinearGemmParams {
  LinearParams linear;
  LinearSplit split;
};
/// For bf16, int8 and fp8, any number of rows.
cudaError_t LinearGemm(const LinearGemmParams& params, cudaStream_t stream);
/// For float32 and float16.
cudaError_t LinearExact(const LinearParams& params, cudaStream_t stream);

}  // namespace llama_steer::cuda
