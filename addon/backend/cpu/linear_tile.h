// The innermost part of linear.cc: a few rows of x by a few outputs in registers. For files
// compiled once a target by Highway; include after <hwy/highway.h>, inside a foreach_target file.
#if defined(LLAMA_STEER_CPU_LINEAR_TILE_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LLAMA_STEER_CPU_LINEAR_TILE_H_
#undef LLAMA_STEER_CPU_LINEAR_TILE_H_
#else
#define LLAMA_STEER_CPU_LINEAR_TILE_H_
#endif

#include <algorithm>
#include <type_traits>

#include "backend/cpu/linear.h"
#include "backend/cpu/simd_load.h"
#include "backend/cpu/simd_reduce.h"

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

/// So few rows wait for memory, not for the multipliers: their weights are read from end to end.
constexpr bool ReadsInOrder(int mr) { return mr <= 3; }

// Register blocking: MR rows of x by NR outputs, MR * NR accumulators.
#if HWY_TARGET <= HWY_AVX3
constexpr int kMaxMr = 8;
constexpr int NrByRegisters(int mr) { return mr == 4 ? 6 : mr <= 6 ? 4 : 3; }
#else
constexpr int kMaxMr = 6;
constexpr int NrByRegisters(int mr) { return mr == 4 ? 3 : 2; }
#endif
/// What reads in order takes few outputs, since memory likes few streams: with long vectors and one
/// row as few as keep an accumulator ahead of a share of the bandwidth. More rows would read x too
/// often, short vectors fall behind.
template <class Row>
constexpr int NrFor(int mr) {
  if (!ReadsInOrder(mr)) return NrByRegisters(mr);
  if (mr > 1 || HWY_TARGET > HWY_AVX3) return 4;
  return std::is_same_v<Row, RowInt8> ? 2 : 1;
}
constexpr int kMaxNr = 6;

/// Inputs of a block, a multiple of 64: MR rows of that many float32 stay in the first-level cache
/// while all outputs of a task pass by.
constexpr int64_t BlockInputs(int mr) {
  return ReadsInOrder(mr) ? int64_t{1} << 40 : 4096 / mr / 64 * 64;
}
/// Bytes between what a tile that reads in order multiplies and what it fetches: about the
/// bandwidth of a core times the latency of memory. Farther ahead, the first-level cache would
/// overflow.
constexpr int64_t kAheadBytes = 8192;
/// Inputs whose int8 scales a tile prepares at a time.
constexpr int64_t kPreparedInputs = 2048;
constexpr size_t kCacheLine = 64;  // bytes

/// Keeps the compiler from loading a vector anew for each of its uses.
HWY_INLINE void KeepInRegister(VF& v) {
#if HWY_TARGET <= HWY_AVX3
  asm("" : "+v"(v.raw));
#else
  static_cast<void>(v);
#endif
}

/// Fetches, while tiles are computed, bytes that are read later.
struct Ahead {
  const uint8_t* next = nullptr;
  const uint8_t* end = nullptr;

  template <size_t kLines>
  HWY_INLINE void Fetch() {
    if (next >= end) return;
#pragma GCC unroll 16
    for (size_t i = 0; i < kLines; ++i) hwy::Prefetch(next + i * kCacheLine);
    next += kLines * kCacheLine;
  }
};

/// The weights of NR outputs as a tile reads them.
template <int NR, class Row>
struct TileWeights {
  static constexpr size_t kPairBytes = 2 * HWY_LANES(float) * Row::kElementBytes;
  Row rows[NR];

  HWY_INLINE void Prepare(int64_t, int64_t) {}
  HWY_INLINE VF Load(int n, size_t k) const { return rows[n].Load(DF(), k); }
};

/// int8: each scale becomes float32 once for the vectors that share it.
template <int NR>
struct TileWeights<NR, RowInt8> {
  static constexpr size_t kPairBytes = 2 * HWY_LANES(float);
  RowInt8 rows[NR];
  size_t first_group;
  HWY_ALIGN float scales[NR][kPreparedInputs / kInt8GroupSize];

  HWY_INLINE void Prepare(int64_t begin, int64_t end) {
    const DF d;
    first_group = static_cast<size_t>(begin / kInt8GroupSize);
    const auto last_group = static_cast<size_t>((end + kInt8GroupSize - 1) / kInt8GroupSize);
    for (int n = 0; n < NR; ++n) {
      const RowBF16 stored{rows[n].scales};
      size_t group = first_group;
      float* to = scales[n];
      for (; group + Lanes() <= last_group; group += Lanes(), to += Lanes()) {
        hn::StoreU(stored.Load(d, group), d, to);
      }
      for (; group < last_group; ++group) *to++ = stored.At(group);
    }
  }
  HWY_INLINE VF Load(int n, size_t k) const {
    const VF scale = hn::Set(DF(), scales[n][k / kInt8GroupSize - first_group]);
    return hn::Mul(rows[n].Codes(DF(), k), scale);
  }
};

/// acc += one vector of each row of x times one vector of each output's weights. The shorter side
/// stays in registers.
template <int MR, int NR, class LoadW>
HWY_INLINE void Accumulate(const float* HWY_RESTRICT x, const LoadW& load_w, VF (&acc)[MR * NR]) {
  const DF d;
  const size_t lanes = Lanes();
  if constexpr (MR <= NR) {
    VF xv[MR];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
      xv[m] = hn::LoadU(d, x + m * lanes);
      KeepInRegister(xv[m]);
    }
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) {
      const VF w = load_w(n);
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m) acc[m * NR + n] = hn::MulAdd(xv[m], w, acc[m * NR + n]);
    }
  } else {
    VF w[NR];
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) w[n] = load_w(n);
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
      VF xv = hn::LoadU(d, x + m * lanes);
      KeepInRegister(xv);
#pragma GCC unroll 8
      for (int n = 0; n < NR; ++n) acc[m * NR + n] = hn::MulAdd(xv, w[n], acc[m * NR + n]);
    }
  }
}

/// acc[m][n] += x · w over inputs [begin, end). `x` is packed and starts at `begin`; `distance` is
/// from the weights in use to those that a tile that reads in order fetches, in bytes.
template <int MR, int NR, class Weights>
HWY_INLINE void AccumulateBlock(const float* HWY_RESTRICT x, const Weights& weights, size_t begin,
                                size_t end, size_t distance, Ahead& shared_ahead,
                                VF (&acc)[MR * NR]) {
  const size_t lanes = Lanes();
  constexpr size_t kPairBytes = Weights::kPairBytes;
  Ahead ahead = shared_ahead;
  size_t k = begin;
  for (; k + 2 * lanes <= end; k += 2 * lanes) {
    if constexpr (ReadsInOrder(MR)) {
      const bool new_line = k / (2 * lanes) * kPairBytes % kCacheLine < kPairBytes;
#pragma GCC unroll 8
      for (int n = 0; n < NR && new_line; ++n) {
        const auto* next = static_cast<const uint8_t*>(weights.rows[n].Address(k)) + distance;
        for (size_t i = 0; i < kPairBytes; i += kCacheLine) hwy::Prefetch(next + i);
      }
    } else {
      ahead.Fetch<(NR * kPairBytes + kCacheLine - 1) / kCacheLine>();
    }
    Accumulate<MR, NR>(
        x, [&](int n) { return weights.Load(n, k); }, acc);
    Accumulate<MR, NR>(
        x + MR * lanes, [&](int n) { return weights.Load(n, k + lanes); }, acc);
    x += 2 * MR * lanes;
  }
  shared_ahead = ahead;
  if (k + lanes <= end) {
    Accumulate<MR, NR>(
        x, [&](int n) { return weights.Load(n, k); }, acc);
    x += MR * lanes;
    k += lanes;
  }
  if (k < end) {
    Accumulate<MR, NR>(
        x, [&](int n) { return LoadTail(DF(), weights.rows[n], k, end); }, acc);
  }
}

/// Rows [m, m + MR) by outputs [n, n + valid) of a task, inputs [begin, end).
struct Tile {
  const float* x = nullptr;  // packed, from `begin` on
  int64_t m = 0;
  int64_t n = 0;
  int64_t valid = 0;
  int64_t begin = 0;
  int64_t end = 0;
};

template <int MR, int NR>
HWY_INLINE void StoreOutputs(const LinearTask& task, const Tile& tile, const VF (&acc)[MR * NR]) {
  float result[MR * NR];
  SumLanes(acc, result);
  const LinearJob& job = *task.job;
  for (int64_t j = 0; j < tile.valid; ++j) {
    const bool biased = job.bias != nullptr;
    const float bias = biased ? WeightAt(*job.bias, 0, tile.n + j) : 0.0f;
    for (int64_t i = 0; i < MR; ++i) {
      const float sum = result[i * NR + j];
      job.output[(tile.m + i) * job.weight->rows + tile.n + j] = biased ? sum + bias : sum;
    }
  }
}

/// Goes on from `sums` unless the tile begins with the first input; leaves its own there unless it
/// ends with the last, which gives the outputs.
template <int MR, int NR, class Row>
HWY_NOINLINE void RunTile(const LinearTask& task, const Tile& tile, TileWeights<NR, Row>& weights,
                          Ahead& ahead, float* HWY_RESTRICT sums) {
  const DF d;
  VF acc[MR * NR];
#pragma GCC unroll 32
  for (int i = 0; i < MR * NR; ++i) {
    acc[i] = tile.begin == 0 ? hn::Zero(d) : hn::LoadU(d, sums + i * Lanes());
  }
  // A tile that reads in order fetches what comes later in its rows, and then what the next tile
  // begins with.
  constexpr auto kElementBytes = static_cast<int64_t>(Row::kElementBytes);
  constexpr int64_t kAheadInputs = kAheadBytes / NR / kElementBytes;
  const int64_t own_rows = ReadsInOrder(MR) ? (task.cols - kAheadInputs) / 64 * 64 : 0;
  for (int64_t begin = tile.begin; begin < tile.end;) {
    const bool own = begin < own_rows;
    const int64_t end = std::min({begin + kPreparedInputs, tile.end, own ? own_rows : tile.end});
    const int64_t distance = (own ? 0 : (NR - 1) * task.cols) + kAheadInputs;
    weights.Prepare(begin, end);
    AccumulateBlock<MR, NR>(tile.x + (begin - tile.begin) * MR, weights, static_cast<size_t>(begin),
                            static_cast<size_t>(end), static_cast<size_t>(distance * kElementBytes),
                            ahead, acc);
    begin = end;
  }
  if (tile.end == task.cols) return StoreOutputs<MR, NR>(task, tile, acc);
#pragma GCC unroll 32
  for (int i = 0; i < MR * NR; ++i) hn::StoreU(acc[i], d, sums + i * Lanes());
}

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
