#include "backend/cpu/lora.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <thread>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/lora.cc"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway asks.
#include <hwy/highway.h>

#include "backend/cpu/simd_load.h"

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

constexpr int kMaxExpandRows = 4;

/// y[n ..] += scale · acc for the outputs that there are.
HWY_INLINE void AddScaled(VF acc, VF scale, float* HWY_RESTRICT y, int64_t valid) {
  const DF d;
  if (valid >= static_cast<int64_t>(Lanes())) {
    hn::StoreU(hn::MulAdd(scale, acc, hn::LoadU(d, y)), d, y);
  } else if (valid > 0) {
    HWY_ALIGN float buffer[HWY_MAX_BYTES / sizeof(float)] = {};
    std::copy_n(y, valid, buffer);
    hn::Store(hn::MulAdd(scale, acc, hn::Load(d, buffer)), d, buffer);
    std::copy_n(buffer, valid, y);
  }
}

/// Rows [m, m + kRows) of the term.
template <int kRows, class Row>
void ExpandRows(const LoraExpandTask& task, int64_t m) {
  const DF d;
  const LoraTerm& term = *task.term;
  const auto& weight = static_cast<const CpuLoraWeight&>(*term.weight);
  const int64_t rank = weight.rank;
  const auto lanes = static_cast<int64_t>(Lanes());
  const VF scale = hn::Set(d, weight.scale);
  const float* HWY_RESTRICT reduced = task.reduced + m * rank;
  float* y = static_cast<float*>(term.output.data) + (term.first_row + m) * weight.outputs;
  for (int64_t n = task.first; n < task.last; n += 2 * lanes) {
    VF acc[kRows * 2];
#pragma GCC unroll 8
    for (int i = 0; i < kRows * 2; ++i) acc[i] = hn::Zero(d);
    for (int64_t k = 0; k < rank; ++k) {
      const VectorPair b = RowOf<Row>(weight.b, k).LoadPair(d, static_cast<size_t>(n));
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) {
        const VF u = hn::Set(d, reduced[i * rank + k]);
        acc[2 * i] = hn::MulAdd(u, b.first, acc[2 * i]);
        acc[2 * i + 1] = hn::MulAdd(u, b.second, acc[2 * i + 1]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      float* out = y + i * weight.outputs + n;
      AddScaled(acc[2 * i], scale, out, task.last - n);
      AddScaled(acc[2 * i + 1], scale, out + lanes, task.last - n - lanes);
    }
  }
}

template <class Row>
void Expand(const LoraExpandTask& task) {
  using Strip = void (*)(const LoraExpandTask&, int64_t);
  static constexpr Strip kStrips[kMaxExpandRows + 1] = {
      nullptr, ExpandRows<1, Row>, ExpandRows<2, Row>, ExpandRows<3, Row>, ExpandRows<4, Row>};
  const int64_t rows = task.term->row_count;
  for (int64_t m = 0; m < rows; m += kMaxExpandRows) {
    kStrips[std::min<int64_t>(kMaxExpandRows, rows - m)](task, m);
  }
}

void RunExpand(const LoraExpandTask& task) {
  switch (static_cast<const CpuLoraWeight&>(*task.term->weight).b.dtype) {
    case DType::kF32:
      return Expand<RowF32>(task);
    case DType::kF16:
      return Expand<RowF16>(task);
    case DType::kBF16:
      return Expand<RowBF16>(task);
    case DType::kInt8:
    case DType::kFp8:
      return;  // LoadLora takes none
  }
}

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llama_steer::cpu {
namespace {
HWY_EXPORT(RunExpand);

/// Rows of x and rows of A of one task: the latter a multiple of every register block.
constexpr int64_t kShrinkRows = 64;
constexpr int64_t kShrinkOutputs = 24;
constexpr int64_t kExpandOutputs = 16 * kLoraOutputAlign;
constexpr int32_t kSpinsBeforeYield = 64;
/// Some tens of microseconds of one core: calling the others can take as long.
constexpr int64_t kMostSerialProducts = 1 << 20;

int64_t PaddedOutputs(int64_t outputs) {
  return (outputs + kLoraOutputAlign - 1) / kLoraOutputAlign * kLoraOutputAlign;
}

bool Own(CpuWeight& weight, int64_t rows, int64_t cols, DType dtype) {
  const size_t bytes = static_cast<size_t>(rows * cols) * DTypeBytes(dtype);
  weight.owned_data = AllocateLargeBuffer(bytes);
  if (weight.owned_data != nullptr) std::memset(weight.owned_data.get(), 0, bytes);
  weight.data = weight.owned_data.get();
  weight.rows = rows;
  weight.cols = cols;
  weight.dtype = dtype;
  return weight.data != nullptr;
}

void CopyTransposed(const TensorView& from, CpuWeight& to) {
  const size_t size = DTypeBytes(from.dtype);
  const auto* source = static_cast<const uint8_t*>(from.data);
  for (int64_t n = 0; n < from.rows; ++n) {
    for (int64_t k = 0; k < from.cols; ++k, source += size) {
      std::memcpy(to.owned_data.get() + static_cast<size_t>(k * to.cols + n) * size, source, size);
    }
  }
}

int64_t ProductsOf(std::span<const LoraTerm> terms) {
  int64_t products = 0;
  for (const LoraTerm& term : terms) {
    const LoraWeight& weight = *term.weight;
    products += term.row_count * weight.rank * (weight.inputs + weight.outputs);
  }
  return products;
}

/// Fills jobs, shrinks and the room for A x.
void PlanShrinks(const float* x, int64_t cols, std::span<const LoraTerm> terms,
                 LoraScratch& scratch) {
  size_t floats = 0;
  for (const LoraTerm& term : terms) {
    floats += static_cast<size_t>(term.row_count * term.weight->rank);
  }
  if (scratch.reduced.size() < floats) scratch.reduced.resize(floats);
  scratch.jobs.clear();
  scratch.shrinks.clear();
  float* reduced = scratch.reduced.data();
  for (const LoraTerm& term : terms) {
    for (int64_t row = 0; row < term.row_count; row += kShrinkRows) {
      scratch.jobs.push_back({&static_cast<const CpuLoraWeight&>(*term.weight).a, nullptr,
                              reduced + row * term.weight->rank});
    }
    reduced += term.row_count * term.weight->rank;
  }
  const LinearJob* job = scratch.jobs.data();
  for (const LoraTerm& term : terms) {
    for (int64_t row = 0; row < term.row_count; row += kShrinkRows, ++job) {
      const int64_t rows = std::min(kShrinkRows, term.row_count - row);
      for (int64_t first = 0; first < term.weight->rank; first += kShrinkOutputs) {
        const int64_t last = std::min(term.weight->rank, first + kShrinkOutputs);
        scratch.shrinks.push_back({job,
                                   x + (term.first_row + row) * cols,
                                   rows,
                                   cols,
                                   first,
                                   last,
                                   nullptr,
                                   nullptr,
                                   {}});
      }
    }
  }
}

std::vector<LoraExpandTask> ExpandsOf(std::span<const LoraTerm> terms, const float* reduced) {
  std::vector<LoraExpandTask> tasks;
  for (const LoraTerm& term : terms) {
    for (int64_t first = 0; first < term.weight->outputs; first += kExpandOutputs) {
      const int64_t last = std::min(term.weight->outputs, first + kExpandOutputs);
      tasks.push_back({&term, reduced, first, last});
    }
    reduced += term.row_count * term.weight->rank;
  }
  return tasks;
}

}  // namespace

StatusOr<std::unique_ptr<LoraWeight>> MakeCpuLoraWeight(const TensorView& a, const TensorView& b,
                                                        float scale) {
  if (DTypeBytes(a.dtype) < 2 || DTypeBytes(b.dtype) < 2 || a.rows != b.cols) {
    return Status::InvalidArgument("LoRA factors that do not fit each other");
  }
  auto weight = std::make_unique<CpuLoraWeight>();
  weight->inputs = a.cols;
  weight->outputs = b.rows;
  weight->rank = a.rows;
  weight->scale = scale;
  if (!Own(weight->a, a.rows, a.cols, a.dtype) ||
      !Own(weight->b, a.rows, PaddedOutputs(b.rows), b.dtype)) {
    return Status::ResourceExhausted("no memory for the adapter's tensor " + std::string(a.name));
  }
  std::memcpy(weight->a.owned_data.get(), a.data, a.bytes());
  CopyTransposed(b, weight->b);
  return std::unique_ptr<LoraWeight>(std::move(weight));
}

void AddLora(const float* x, int64_t cols, std::span<const LoraTerm> terms, LoraScratch& scratch,
             ThreadPool& pool) {
  PlanShrinks(x, cols, terms, scratch);
  const std::vector<LoraExpandTask> expands = ExpandsOf(terms, scratch.reduced.data());
  scratch.linear.resize(static_cast<size_t>(pool.threads()));
  const auto shrinks = static_cast<int64_t>(scratch.shrinks.size());
  std::atomic<int64_t> shrunk{0};
  // One loop for both halves. Indices are handed out in order: whoever waits here waits for workers
  // that are computing, never for one that waits.
  const auto wait = [&] {
    for (int32_t spin = 0; shrunk.load(std::memory_order_acquire) < shrinks; ++spin) {
      if (spin >= kSpinsBeforeYield) std::this_thread::yield();
    }
  };
  const auto run = [&](int64_t index, int32_t worker) {
    if (index < shrinks) {
      LinearTask task = scratch.shrinks[static_cast<size_t>(index)];
      task.scratch = &scratch.linear[static_cast<size_t>(worker)];
      RunLinearTask(task);
      shrunk.fetch_add(1, std::memory_order_release);
      return;
    }
    wait();
    HWY_DYNAMIC_DISPATCH(RunExpand)(expands[static_cast<size_t>(index - shrinks)]);
  };
  const int64_t tasks = shrinks + static_cast<int64_t>(expands.size());
  if (ProductsOf(terms) <= kMostSerialProducts) {
    for (int64_t index = 0; index < tasks; ++index) run(index, 0);
  } else {
    pool.ParallelFor(tasks, run);
  }
}

}  // namespace llama_steer::cpu
#endif
