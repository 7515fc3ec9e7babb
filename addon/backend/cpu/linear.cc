#include "backend/cpu/linear.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/linear.cc"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway asks.
#include <hwy/highway.h>

#include "backend/cpu/linear_tile.h"

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

// From so many rows on, a task's weights become float32 once for all rows. With 32 registers the
// conversion of 16-bit weights hides behind the multiplications of one strip.
template <class Row>
constexpr int64_t kPanelFromRows = HWY_TARGET <= HWY_AVX3 ? std::numeric_limits<int64_t>::max()
                                                          : 12;
template <>
constexpr int64_t kPanelFromRows<RowF32> = std::numeric_limits<int64_t>::max();
template <>
constexpr int64_t kPanelFromRows<RowInt8> = HWY_TARGET <= HWY_AVX3 ? 32 : 12;

// A second-level cache of 1 MiB holds the weights of a task, or so many inputs of them, while the
// strips of x pass by, and beside them the sums of so many strips.
constexpr int64_t kCachedInputs = 2048;
constexpr int64_t kCachedStrips = 8;

/// A strip is the rows of x that one tile takes. Strips are of about the same size: one row would
/// take nearly as long as four.
HWY_INLINE int64_t StripCount(int64_t rows) { return (rows + kMaxMr - 1) / kMaxMr; }
HWY_INLINE int64_t StripBegin(int64_t rows, int64_t strip) {
  return rows * strip / StripCount(rows);
}

/// Floats of a packed row.
HWY_INLINE int64_t PackedCols(int64_t cols) {
  const auto lanes = static_cast<int64_t>(Lanes());
  return (cols + lanes - 1) / lanes * lanes;
}

/// A strip of x in the order in which tiles read it: of each vector of inputs, all rows.
void PackStrip(const float* HWY_RESTRICT x, int64_t rows, int64_t cols, int64_t strip,
               float* HWY_RESTRICT packed) {
  const DF d;
  const auto lanes = static_cast<int64_t>(Lanes());
  const int64_t first = StripBegin(rows, strip);
  const int64_t count = StripBegin(rows, strip + 1) - first;
  packed += first * PackedCols(cols);
  for (int64_t m = 0; m < count; ++m) {
    const float* row = x + (first + m) * cols;
    float* to = packed + m * lanes;
    int64_t k = 0;
    for (; k + lanes <= cols; k += lanes, to += count * lanes) {
      hn::StoreU(hn::LoadU(d, row + k), d, to);
    }
    if (k < cols) {
      hn::StoreU(LoadTail(d, RowF32{row}, static_cast<size_t>(k), static_cast<size_t>(cols)), d,
                 to);
    }
  }
}

/// Where a strip finds the weights of an output.
template <class Row>
struct StoredRows {
  using RowType = Row;
  const CpuWeight* weight;
  HWY_INLINE Row At(int64_t n) const { return RowOf<Row>(*weight, n); }
};
struct PanelRows {
  using RowType = RowF32;
  const float* panel;
  int64_t first;   // output
  int64_t begin;   // input
  int64_t inputs;  // of a row of the panel
  HWY_INLINE RowF32 At(int64_t n) const { return {panel + (n - first) * inputs - begin}; }
};

/// The row without its first inputs, a multiple of every group.
template <class Row>
HWY_INLINE Row RowFrom(Row row, int64_t begin) {
  row.row += begin;
  if constexpr (std::is_same_v<Row, RowInt8>) row.scales += begin / kInt8GroupSize;
  return row;
}

struct Range {
  int64_t begin;
  int64_t end;
};

/// All outputs of the task for rows [m, m + MR) and a range of the inputs.
template <int MR, class Source>
void RunStrip(const LinearTask& task, int64_t m, Range inputs, const Source& source, Ahead& ahead,
              float* sums) {
  constexpr int kNr = NrFor<typename Source::RowType>(MR);
  const float* x = task.packed + m * PackedCols(task.cols);
  for (int64_t begin = inputs.begin; begin < inputs.end; begin += BlockInputs(MR)) {
    const int64_t end = std::min(begin + BlockInputs(MR), inputs.end);
    float* tile_sums = sums;
    for (int64_t n = task.first; n < task.last; n += kNr, tile_sums += MR * kNr * Lanes()) {
      const int64_t valid = std::min<int64_t>(kNr, task.last - n);
      TileWeights<kNr, typename Source::RowType> weights;
      // Outputs past the end repeat the last one and are not stored.
      for (int64_t j = 0; j < kNr; ++j) weights.rows[j] = source.At(n + std::min(j, valid - 1));
      RunTile<MR, kNr>(task, {x + begin * MR, m, n, valid, begin, end}, weights, ahead, tile_sums);
    }
  }
}

template <class Source>
void RunStrips(const LinearTask& task, Range strips, Range inputs, const Source& source,
               Ahead& ahead, float* sums, size_t strip_sums) {
  using Strip = void (*)(const LinearTask&, int64_t, Range, const Source&, Ahead&, float*);
  static constexpr Strip kStrips[] = {
    nullptr,
    RunStrip<1, Source>,
    RunStrip<2, Source>,
    RunStrip<3, Source>,
    RunStrip<4, Source>,
    RunStrip<5, Source>,
    RunStrip<6, Source>,
#if HWY_TARGET <= HWY_AVX3
    RunStrip<7, Source>,
    RunStrip<8, Source>,
#endif
  };
  for (int64_t strip = strips.begin; strip < strips.end; ++strip, sums += strip_sums) {
    const int64_t m = StripBegin(task.rows, strip);
    kStrips[StripBegin(task.rows, strip + 1) - m](task, m, inputs, source, ahead, sums);
  }
}

template <class Row>
void TaskRows(const LinearTask& task) {
  const int64_t outputs = task.last - task.first;
  const int64_t strips = StripCount(task.rows);
  const bool whole = strips == 1 || task.cols <= kCachedInputs;
  const int64_t block_inputs = whole ? task.cols : kCachedInputs;
  const int64_t block_strips = whole ? strips : kCachedStrips;
  const size_t strip_sums = static_cast<size_t>((outputs + kMaxNr) * kMaxMr) * Lanes();
  float* sums = task.scratch->sums.AtLeast(strip_sums * (whole ? 1 : kCachedStrips));
  const bool paneled = task.rows >= kPanelFromRows<Row>;
  float* panel =
      paneled ? task.scratch->panel.AtLeast(static_cast<size_t>(outputs * block_inputs)) : nullptr;
  Ahead ahead{task.next.data(), task.next.data() + task.next.size()};

  for (int64_t strip = 0; strip < strips; strip += block_strips) {
    const Range block{strip, std::min(strips, strip + block_strips)};
    for (int64_t begin = 0; begin < task.cols; begin += block_inputs) {
      const Range inputs{begin, std::min(begin + block_inputs, task.cols)};
      if (!paneled) {
        RunStrips(task, block, inputs, StoredRows<Row>{task.job->weight}, ahead, sums,
                  whole ? 0 : strip_sums);
        continue;
      }
      for (int64_t n = task.first; n < task.last; ++n) {
        ConvertRow(RowFrom(RowOf<Row>(*task.job->weight, n), begin),
                   static_cast<size_t>(inputs.end - begin),
                   panel + (n - task.first) * block_inputs);
      }
      RunStrips(task, block, inputs, PanelRows{panel, task.first, begin, block_inputs}, ahead, sums,
                whole ? 0 : strip_sums);
    }
  }
}

void RunTask(const LinearTask& given) {
  LinearTask task = given;
  if (task.packed == nullptr) {
    float* packed =
        task.scratch->packed.AtLeast(static_cast<size_t>(task.rows * PackedCols(task.cols)));
    for (int64_t strip = 0; strip < StripCount(task.rows); ++strip) {
      PackStrip(task.x, task.rows, task.cols, strip, packed);
    }
    task.packed = packed;
  }
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

LinearPlan PlanOf(int64_t rows, int64_t cols) {
  return {StripCount(rows), rows * PackedCols(cols)};
}

/// Outputs of the next task of `rest` that are left, a multiple of every NR. Rows that wait for
/// memory get long tasks, since what is fetched ahead at the end of one is another worker's, and
/// short ones towards the end, so that the workers end together. Then few, for the same reason, and
/// then what the second-level cache holds.
int64_t TaskOutputs(const CpuWeight& weight, int64_t rows, int64_t rest, int64_t threads) {
  constexpr int64_t kLeast = 24;
  constexpr int64_t kLongTaskBytes = 1 << 20;
  if (rows <= kMaxMr && ReadsInOrder(static_cast<int>(rows))) {
    const int64_t row_bytes = static_cast<int64_t>(DTypeBytes(weight.dtype)) * weight.cols;
    const int64_t outputs =
        std::min(rest / (2 * threads), kLongTaskBytes / std::max<int64_t>(row_bytes, 1));
    return std::max(outputs / kLeast, int64_t{1}) * kLeast;
  }
  if (rows <= kMaxMr) return kLeast;
  const bool float32 =
      weight.dtype == DType::kF32 || weight.dtype == DType::kInt8 || HWY_TARGET > HWY_AVX3;
  return float32 ? 2 * kLeast : 4 * kLeast;
}

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llama_steer::cpu {
namespace {
HWY_EXPORT(RunTask);
HWY_EXPORT(PackStrip);
HWY_EXPORT(PlanOf);
HWY_EXPORT(TaskOutputs);

/// Floats of x from which on it pays to call the other workers for packing.
constexpr int64_t kSerialPacking = 1 << 16;

/// x in the order of the kernels.
const float* Pack(const float* x, int64_t rows, int64_t cols, FloatBuffer& buffer,
                  ThreadPool& pool) {
  const LinearPlan plan = HWY_DYNAMIC_DISPATCH(PlanOf)(rows, cols);
  float* packed = buffer.AtLeast(static_cast<size_t>(plan.packed_floats));
  const auto pack = [&](int64_t strip, int32_t) {
    HWY_DYNAMIC_DISPATCH(PackStrip)(x, rows, cols, strip, packed);
  };
  if (rows * cols > kSerialPacking) {
    pool.ParallelFor(plan.strips, pack);
  } else {
    for (int64_t strip = 0; strip < plan.strips; ++strip) pack(strip, 0);
  }
  return packed;
}

std::span<const uint8_t> WeightsOf(const LinearTask& task) {
  const CpuWeight& weight = *task.job->weight;
  const size_t row = static_cast<size_t>(weight.cols) * DTypeBytes(weight.dtype);
  return {static_cast<const uint8_t*>(weight.data) + static_cast<size_t>(task.first) * row,
          static_cast<size_t>(task.last - task.first) * row};
}
}  // namespace

void Linear(const float* x, int64_t rows, int64_t cols, std::span<const LinearJob> jobs,
            LinearBuffers& buffers, ThreadPool& pool) {
  if (rows == 0) return;
  const float* packed = Pack(x, rows, cols, buffers.packed, pool);
  std::vector<LinearTask> tasks;
  for (const LinearJob& job : jobs) {
    const int64_t outputs = job.weight->rows;
    for (int64_t first = 0, last = 0; first < outputs; first = last) {
      last = std::min(outputs, first + HWY_DYNAMIC_DISPATCH(TaskOutputs)(
                                           *job.weight, rows, outputs - first, pool.threads()));
      tasks.push_back({&job, x, rows, cols, first, last, nullptr, packed, {}});
    }
  }
  const auto count = static_cast<int64_t>(tasks.size());
  pool.ParallelFor(count, [&](int64_t index, int32_t worker) {
    LinearTask task = tasks[static_cast<size_t>(index)];
    task.scratch = &buffers.workers[static_cast<size_t>(worker)];
    const int64_t next = index + pool.threads();  // of as many outputs, where that is read
    if (next < count) task.next = WeightsOf(tasks[static_cast<size_t>(next)]);
    RunLinearTask(task);
  });
}

void RunLinearTask(const LinearTask& task) { HWY_DYNAMIC_DISPATCH(RunTask)(task); }

}  // namespace llama_steer::cpu
#endif
