#include "backend/cpu/linear.h"

#include <algorithm>
#include <array>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/linear.cc"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway asks.
#include <hwy/highway.h>

#include "backend/cpu/simd_load.h"
#include "backend/cpu/simd_reduce.h"

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

// Register blocking: MR rows of x by NR outputs, MR * NR accumulators.
#if HWY_TARGET <= HWY_AVX3
constexpr int kPanelMr = 4, kPanelNr = 6;
constexpr int NrFor(int mr) { return mr <= 2 ? 8 : mr <= 4 ? 6 : 3; }
#else
constexpr int kPanelMr = 3, kPanelNr = 4;
constexpr int NrFor(int mr) { return mr == 1 ? 8 : mr <= 3 ? 4 : mr == 4 ? 3 : 2; }
#endif
constexpr int kMaxDirectMr = 8;
/// From here on a panel of weights is converted to float32 once and used for all rows.
constexpr int64_t kPanelFromRows = 12;
/// Rows of x that share a converted panel: as many as half of a 1 MiB second-level cache holds.
constexpr int64_t kRowBlockBytes = 512 << 10;
constexpr size_t kCacheLine = 64;  // bytes
/// Cache lines of the next panel that each pair of vectors of a tile fetches.
constexpr size_t kPanelLinesAPair = 2;

/// Fetches, while a tile is computed, the bytes that the next one reads. Rows of a weight follow
/// one another in memory, so both see one stream.
struct Ahead {
  const uint8_t* next = nullptr;  // where the next tile's weights begin
  size_t lines_a_pair = 0;        // cache lines to fetch for each pair of vectors
  HWY_INLINE void Fetch() {
    for (size_t i = 0; i < lines_a_pair; ++i, next += kCacheLine) hwy::Prefetch(next);
  }
};

/// acc += one vector of each row of x times one vector of each output's weights.
template <int MR, int NR, class LoadX, class LoadW>
HWY_INLINE void Accumulate(VF (&acc)[MR * NR], const LoadX& load_x, const LoadW& load_w) {
  VF xv[MR];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m) xv[m] = load_x(m);
#pragma GCC unroll 8
  for (int n = 0; n < NR; ++n) {
    const VF w = load_w(n);
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) acc[m * NR + n] = hn::MulAdd(xv[m], w, acc[m * NR + n]);
  }
}

/// acc[m][n] over all k, lanes summed: result[m * NR + n].
template <int MR, int NR, class Row>
HWY_INLINE void Tile(const float* HWY_RESTRICT x, size_t x_stride, const Row (&rows)[NR],
                     size_t cols, Ahead ahead, float* HWY_RESTRICT result) {
  const DF d;
  const size_t lanes = Lanes();
  VF acc[MR * NR];
#pragma GCC unroll 32
  for (int i = 0; i < MR * NR; ++i) acc[i] = hn::Zero(d);

  size_t k = 0;
  for (; k + 2 * lanes <= cols; k += 2 * lanes) {
    ahead.Fetch();
    VectorPair w[NR];
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) w[n] = rows[n].LoadPair(d, k);
    const auto load_x = [&](int m) { return hn::LoadU(d, x + m * x_stride + k); };
    const auto load_next_x = [&](int m) { return hn::LoadU(d, x + m * x_stride + k + lanes); };
    Accumulate<MR, NR>(acc, load_x, [&](int n) { return w[n].first; });
    Accumulate<MR, NR>(acc, load_next_x, [&](int n) { return w[n].second; });
  }
  if (k + lanes <= cols) {
    Accumulate<MR, NR>(
        acc, [&](int m) { return hn::LoadU(d, x + m * x_stride + k); },
        [&](int n) { return rows[n].Load(d, k); });
    k += lanes;
  }
  if (k < cols) {
    Accumulate<MR, NR>(
        acc, [&](int m) { return LoadTail(d, RowF32{x + m * x_stride}, k, cols); },
        [&](int n) { return LoadTail(d, rows[n], k, cols); });
  }
  SumLanes(acc, result);
}

/// Tile plus bias and store; only the first `valid` outputs are real.
template <int MR, int NR, class Row>
HWY_NOINLINE void TileAndStore(const LinearTask& task, int64_t m, int64_t n, int64_t valid,
                               const Row (&rows)[NR], Ahead ahead) {
  float result[MR * NR];
  Tile<MR, NR>(task.x + m * task.cols, static_cast<size_t>(task.cols), rows,
               static_cast<size_t>(task.cols), ahead, result);
  const LinearJob& job = *task.job;
  for (int64_t j = 0; j < valid; ++j) {
    const bool biased = job.bias != nullptr;
    const float bias = biased ? WeightAt(*job.bias, 0, n + j) : 0.0f;
    for (int64_t i = 0; i < MR; ++i) {
      const float sum = result[i * NR + j];
      job.output[(m + i) * job.weight->rows + n + j] = biased ? sum + bias : sum;
    }
  }
}

/// Few rows: weights are converted as they stream by. All outputs of the task, rows [m, m + MR).
template <int MR, class Row>
void DirectStrip(const LinearTask& task, int64_t m) {
  constexpr int kNr = NrFor(MR);
  for (int64_t n = task.first; n < task.last; n += kNr) {
    const int64_t valid = std::min<int64_t>(kNr, task.last - n);
    Row rows[kNr];
    // Outputs past the end repeat the last one and are not stored.
    for (int64_t j = 0; j < kNr; ++j) {
      rows[j] = RowOf<Row>(*task.job->weight, n + std::min(j, valid - 1));
    }
    const auto* next = static_cast<const uint8_t*>(rows[0].Address(0)) +
                       kNr * static_cast<size_t>(task.cols) * Row::kElementBytes;
    constexpr size_t kPairBytes = kNr * 2 * Row::kElementBytes;  // for each lane
    TileAndStore<MR, kNr>(task, m, n, valid, rows,
                          {next, (kPairBytes * Lanes() + 63) / kCacheLine});
  }
}

template <class Row>
void DirectRows(const LinearTask& task) {
  using Strip = void (*)(const LinearTask&, int64_t);
  static constexpr Strip kStrips[kMaxDirectMr + 1] = {nullptr,
                                                      DirectStrip<1, Row>,
                                                      DirectStrip<2, Row>,
                                                      DirectStrip<3, Row>,
                                                      DirectStrip<4, Row>,
                                                      DirectStrip<5, Row>,
                                                      DirectStrip<6, Row>,
                                                      DirectStrip<7, Row>,
                                                      DirectStrip<8, Row>};
  for (int64_t m = 0; m < task.rows;) {
    const int64_t mr = std::min<int64_t>(kMaxDirectMr, task.rows - m);
    kStrips[mr](task, m);
    m += mr;
  }
}

template <int MR>
void PanelStrip(const LinearTask& task, int64_t m, int64_t n, int64_t valid,
                const RowF32 (&rows)[kPanelNr], Ahead ahead) {
  TileAndStore<MR, kPanelNr>(task, m, n, valid, rows, ahead);
}

template <class Row>
HWY_INLINE Ahead PanelAfter(const LinearTask& task, int64_t n) {
  const Row row = RowOf<Row>(*task.job->weight, n);
  const auto* first = static_cast<const uint8_t*>(row.Address(0));
  return {first + static_cast<size_t>(kPanelNr * task.cols) * Row::kElementBytes, kPanelLinesAPair};
}

/// Many rows: each panel of kPanelNr outputs becomes float32 once for a block of rows.
template <class Row>
void PanelRows(const LinearTask& task) {
  using Strip =
      void (*)(const LinearTask&, int64_t, int64_t, int64_t, const RowF32(&)[kPanelNr], Ahead);
#if HWY_TARGET <= HWY_AVX3
  static constexpr Strip kStrips[kPanelMr + 1] = {nullptr, PanelStrip<1>, PanelStrip<2>,
                                                  PanelStrip<3>, PanelStrip<4>};
#else
  static constexpr Strip kStrips[kPanelMr + 1] = {nullptr, PanelStrip<1>, PanelStrip<2>,
                                                  PanelStrip<3>};
#endif
  const int64_t cols = task.cols;
  task.panel->resize(static_cast<size_t>(kPanelNr * cols));
  float* panel = task.panel->data();
  const int64_t by_cache = kRowBlockBytes / (cols * static_cast<int64_t>(sizeof(float)));
  const int64_t block = std::max<int64_t>(16, by_cache - by_cache % kPanelMr);

  for (int64_t block_first = 0; block_first < task.rows; block_first += block) {
    const int64_t block_last = std::min(task.rows, block_first + block);
    for (int64_t n = task.first; n < task.last; n += kPanelNr) {
      const int64_t valid = std::min<int64_t>(kPanelNr, task.last - n);
      RowF32 rows[kPanelNr];
      for (int64_t j = 0; j < kPanelNr; ++j) {
        const int64_t source = std::min(j, valid - 1);
        rows[j] = RowF32{panel + source * cols};
        if (j < valid) {
          ConvertRow(RowOf<Row>(*task.job->weight, n + j), static_cast<size_t>(cols),
                     panel + j * cols);
        }
      }
      Ahead ahead = PanelAfter<Row>(task, n);
      const uint8_t* end = ahead.next + static_cast<size_t>(kPanelNr * cols) * Row::kElementBytes;
      for (int64_t m = block_first; m < block_last;) {
        const int64_t mr = std::min<int64_t>(kPanelMr, block_last - m);
        kStrips[mr](task, m, n, valid, rows, ahead);
        m += mr;
        ahead.next += kPanelLinesAPair * kCacheLine * (static_cast<size_t>(cols) / (2 * Lanes()));
        if (ahead.next >= end) ahead.lines_a_pair = 0;
      }
    }
  }
}

template <class Row>
void TaskRows(const LinearTask& task) {
  if (task.rows >= kPanelFromRows) {
    PanelRows<Row>(task);
  } else {
    DirectRows<Row>(task);
  }
}

void RunTask(const LinearTask& task) {
  switch (task.job->weight->dtype) {
    case DType::kF32:
      return TaskRows<RowF32>(task);
    case DType::kF16:
      return TaskRows<RowF16>(task);
    case DType::kBF16:
      return TaskRows<RowBF16>(task);
    case DType::kInt8:
      return TaskRows<RowInt8>(task);
    case DType::kFp8:
      return;  // MakeCpuWeight makes none
  }
}

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llama_steer::cpu {
namespace {
HWY_EXPORT(RunTask);

/// Outputs a task: a multiple of every NR, so that only the last task of a job has a ragged end.
constexpr int64_t kOutputsPerTask = 96;
}  // namespace

void Linear(const float* x, int64_t rows, int64_t cols, std::span<const LinearJob> jobs,
            ThreadPool& pool) {
  std::vector<LinearTask> tasks;
  for (const LinearJob& job : jobs) {
    for (int64_t first = 0; first < job.weight->rows; first += kOutputsPerTask) {
      const int64_t last = std::min(job.weight->rows, first + kOutputsPerTask);
      tasks.push_back({&job, x, rows, cols, first, last, nullptr});
    }
  }
  std::vector<std::vector<float>> panels(static_cast<size_t>(pool.threads()));
  pool.ParallelFor(static_cast<int64_t>(tasks.size()), [&](int64_t index, int32_t worker) {
    LinearTask task = tasks[static_cast<size_t>(index)];
    task.panel = &panels[static_cast<size_t>(worker)];
    RunLinearTask(task);
  });
}

void RunLinearTask(const LinearTask& task) { HWY_DYNAMIC_DISPATCH(RunTask)(task); }

}  // namespace llama_steer::cpu
#endif
