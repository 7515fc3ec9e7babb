#include "backend/cpu/residual_steer_norm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/residual_steer_norm.cc"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway asks.
#include <hwy/highway.h>

#include "backend/cpu/simd_load.h"
#include "backend/cpu/simd_reduce.h"

HWY_BEFORE_NAMESPACE();
namespace llama_steer::cpu::HWY_NAMESPACE {

/// Σ a·b: four accumulators in turn, added pairwise, then the lanes.
HWY_INLINE float Dot(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, size_t size) {
  const DF d;
  const size_t lanes = Lanes();
  VF acc[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  size_t k = 0;
  for (; k + 4 * lanes <= size; k += 4 * lanes) {
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      acc[j] = hn::MulAdd(hn::LoadU(d, a + k + j * lanes), hn::LoadU(d, b + k + j * lanes), acc[j]);
    }
  }
  for (; k + lanes <= size; k += lanes) {
    acc[0] = hn::MulAdd(hn::LoadU(d, a + k), hn::LoadU(d, b + k), acc[0]);
  }
  if (k < size) {
    acc[0] = hn::MulAdd(LoadTail(d, RowF32{a}, k, size), LoadTail(d, RowF32{b}, k, size), acc[0]);
  }
  return ReduceLanes(hn::Add(hn::Add(acc[0], acc[1]), hn::Add(acc[2], acc[3])));
}

/// h += scale * v
HWY_INLINE void AddScaled(float* HWY_RESTRICT h, const float* HWY_RESTRICT v, float scale,
                          size_t size) {
  const DF d;
  const size_t lanes = Lanes();
  const VF factor = hn::Set(d, scale);
  size_t k = 0;
  for (; k + lanes <= size; k += lanes) {
    hn::StoreU(hn::MulAdd(factor, hn::LoadU(d, v + k), hn::LoadU(d, h + k)), d, h + k);
  }
  for (; k < size; ++k) h[k] = std::fma(scale, v[k], h[k]);
}

HWY_INLINE void AddRow(float* HWY_RESTRICT h, const float* HWY_RESTRICT delta, size_t size) {
  const DF d;
  const size_t lanes = Lanes();
  size_t k = 0;
  for (; k + lanes <= size; k += lanes) {
    hn::StoreU(hn::Add(hn::LoadU(d, h + k), hn::LoadU(d, delta + k)), d, h + k);
  }
  for (; k < size; ++k) h[k] += delta[k];
}

/// out = (h * inverse) * weight, or h * inverse without a weight.
template <class Row>
HWY_INLINE void ScaleByWeight(const float* HWY_RESTRICT h, float inverse, const Row& weight,
                              size_t size, float* HWY_RESTRICT out) {
  const DF d;
  const size_t lanes = Lanes();
  const VF factor = hn::Set(d, inverse);
  size_t k = 0;
  for (; k + lanes <= size; k += lanes) {
    const VF normed = hn::Mul(hn::LoadU(d, h + k), factor);
    hn::StoreU(hn::Mul(normed, weight.Load(d, k)), d, out + k);
  }
  for (; k < size; ++k) out[k] = (h[k] * inverse) * weight.At(k);
}

/// ‖a − b‖
HWY_INLINE float Distance(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, size_t size) {
  const DF d;
  const size_t lanes = Lanes();
  VF acc = hn::Zero(d);
  size_t k = 0;
  for (; k + lanes <= size; k += lanes) {
    const VF change = hn::Sub(hn::LoadU(d, a + k), hn::LoadU(d, b + k));
    acc = hn::MulAdd(change, change, acc);
  }
  if (k < size) {
    const VF change = hn::Sub(LoadTail(d, RowF32{a}, k, size), LoadTail(d, RowF32{b}, k, size));
    acc = hn::MulAdd(change, change, acc);
  }
  return std::sqrt(ReduceLanes(acc));
}

HWY_INLINE void Scale(float* h, float factor, size_t size) {
  const DF d;
  const size_t lanes = Lanes();
  size_t k = 0;
  for (; k + lanes <= size; k += lanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, h + k), hn::Set(d, factor)), d, h + k);
  }
  for (; k < size; ++k) h[k] *= factor;
}

/// The factor a of h + a·v̂ that carries out an operation on the component c = h·v̂.
HWY_INLINE float StepAlong(const SteerOp& op, float component) {
  switch (op.kind) {
    case SteerKind::kProjectOut:
      return -op.coefficient * component;
    case SteerKind::kClamp: {
      const float clipped = std::min(std::max(component, op.clamp_min), op.clamp_max);
      return op.coefficient * (clipped - component);
    }
    case SteerKind::kScaleComponent:
      return (op.coefficient - 1.0f) * component;
    case SteerKind::kAdd:
      break;
  }
  return 0.0f;
}

/// Changes the row and returns ‖Δh‖, before the norm is restored.
HWY_INLINE float Change(const SteerOp& op, const VectorRow& vector, float* h, size_t size) {
  if (op.kind == SteerKind::kAdd) {
    AddScaled(h, vector.values.data(), op.coefficient, size);
    return std::fabs(op.coefficient) * vector.norm;
  }
  if (vector.norm == 0.0f) return 0.0f;  // no direction, no component
  const float along = StepAlong(op, Dot(h, vector.direction.data(), size));
  AddScaled(h, vector.direction.data(), along, size);
  return std::fabs(along);
}

/// Carries out one operation; returns ‖Δh‖ / ‖h‖.
HWY_INLINE float Steer(const SteerOp& op, const VectorRow& vector, float* h, size_t size,
                       std::vector<float>& scratch) {
  const float norm_before = std::sqrt(Dot(h, h, size));
  if (op.preserve_norm) scratch.assign(h, h + size);
  float change = Change(op, vector, h, size);
  if (op.preserve_norm) {
    const float norm_after = std::sqrt(Dot(h, h, size));
    if (norm_after > 0.0f) Scale(h, norm_before / norm_after, size);
    change = Distance(h, scratch.data(), size);
  }
  return norm_before > 0.0f ? change / norm_before : 0.0f;
}

/// Of a row of zeros the cosine is NaN, which the caller of the kernel refuses.
HWY_INLINE float GateScore(const SteerGate& gate, const VectorRow& vector, const float* h,
                           size_t size) {
  if (gate.metric == GateMetric::kDot) return Dot(h, vector.values.data(), size);
  return Dot(h, vector.direction.data(), size) / std::sqrt(Dot(h, h, size));
}

void EvaluateGates(const NormTask& task, int64_t row, int32_t slot, const float* h, size_t size) {
  const SteerTables& steering = *task.args->steering;
  const SteerOpRange range =
      steering.gate_ranges[static_cast<size_t>(task.args->block * steering.slots + slot)];
  const int32_t position = task.step->positions[static_cast<size_t>(row)];
  for (int32_t i = range.begin; i < range.end; ++i) {
    const SteerGate& gate = steering.gates[static_cast<size_t>(i)];
    if (position < gate.position_begin || position >= gate.position_end) continue;
    const float score =
        GateScore(gate, (*task.vectors)[static_cast<size_t>(gate.vector_row)], h, size);
    const bool open =
        gate.comparator == GateComparator::kAbove ? score > gate.threshold : score < gate.threshold;
    SteerProof& proof = steering.proof[row * steering.proof_stride + gate.steering_index];
    proof.gate_score = score;
    proof.gate = open ? GateState::kOpen : GateState::kClosed;
  }
}

void SteerRow(const NormTask& task, int64_t row, float* h, size_t size) {
  const SteerTables& steering = *task.args->steering;
  const int32_t slot = steering.row_slot[static_cast<size_t>(row)];
  if (slot == 0) return;
  if (!steering.gates.empty()) EvaluateGates(task, row, slot, h, size);
  const SteerOpRange range =
      steering.ranges[static_cast<size_t>(task.args->block * steering.slots + slot)];
  const int32_t position = task.step->positions[static_cast<size_t>(row)];
  for (int32_t i = range.begin; i < range.end; ++i) {
    const SteerOp& op = steering.ops[static_cast<size_t>(i)];
    if (position < op.position_begin || position >= op.position_end) continue;
    SteerProof& proof = steering.proof[row * steering.proof_stride + op.steering_index];
    if (op.gated && proof.gate != GateState::kOpen) continue;
    ++proof.layers_acted;
    if (op.inert) continue;
    proof.delta_ratio_sum +=
        Steer(op, (*task.vectors)[static_cast<size_t>(op.vector_row)], h, size, *task.scratch);
  }
}

void ProbeRow(const NormTask& task, int64_t row, const float* h, size_t size) {
  const ProbeTables& probes = *task.args->probes;
  const int32_t slot = probes.row_slot[static_cast<size_t>(row)];
  if (slot == 0) return;
  const SteerOpRange range =
      probes.ranges[static_cast<size_t>(task.args->block * probes.slots + slot)];
  const int32_t position = task.step->positions[static_cast<size_t>(row)];
  for (int32_t i = range.begin; i < range.end; ++i) {
    const ProbeOp& op = probes.ops[static_cast<size_t>(i)];
    if (position < op.position_begin || position >= op.position_end) continue;
    const VectorRow& vector = (*task.vectors)[static_cast<size_t>(op.vector_row)];
    probes.scores[row * probes.score_stride + op.probe_index] = Dot(h, vector.values.data(), size);
  }
}

void CaptureRow(const NormTask& task, CapturePoint point, int64_t row, const float* values,
                size_t size) {
  const CaptureTables* capture = task.args->capture;
  if (capture == nullptr) return;
  const int32_t slot = capture->row_slot[static_cast<size_t>(row)];
  if (slot == 0) return;
  const int32_t site = CaptureSite(point, task.args->block);
  const int32_t ordinal = capture->site_ordinal[static_cast<size_t>(slot * capture->sites + site)];
  if (ordinal < 0) return;
  const int64_t to = capture->row_base[static_cast<size_t>(row)] + ordinal;
  std::memcpy(capture->staging + to * static_cast<int64_t>(size), values, size * sizeof(float));
}

void Normalise(const NormTask& task, const float* h, size_t size, float* out) {
  const float mean_square = Dot(h, h, size) / static_cast<float>(size);
  const float inverse = 1.0f / std::sqrt(mean_square + task.args->epsilon);
  const CpuWeight& weight = AsCpu(*task.args->norm_weight);
  switch (weight.dtype) {
    case DType::kF32:
      return ScaleByWeight(h, inverse, RowF32{static_cast<const float*>(weight.data)}, size, out);
    case DType::kF16:
      return ScaleByWeight(h, inverse, RowF16{static_cast<const uint16_t*>(weight.data)}, size,
                           out);
    case DType::kBF16:
      return ScaleByWeight(h, inverse, RowBF16{static_cast<const uint16_t*>(weight.data)}, size,
                           out);
    case DType::kInt8:
      return ScaleByWeight(
          h, inverse, RowInt8{static_cast<const int8_t*>(weight.data), weight.scales}, size, out);
    case DType::kFp8:
      return;  // MakeCpuWeight makes none
  }
}

void RunRow(const NormTask& task, int64_t row) {
  const ResidualSteerNorm& args = *task.args;
  const auto size = static_cast<size_t>(args.residual.cols);
  float* h = static_cast<float*>(args.residual.data) + row * args.residual.cols;
  float* normed = static_cast<float*>(args.normed.data) + row * args.normed.cols;
  if (args.delta != nullptr) {
    const float* delta = static_cast<const float*>(args.delta->data) + row * args.delta->cols;
    const bool attention = args.sublayer == Sublayer::kAttention;
    CaptureRow(task, attention ? CapturePoint::kAttentionDelta : CapturePoint::kMlpDelta, row,
               delta, size);
    AddRow(h, delta, size);
  }
  if (args.sublayer == Sublayer::kEmbedding)
    CaptureRow(task, CapturePoint::kEmbedding, row, h, size);
  if (args.sublayer == Sublayer::kMlp) {
    CaptureRow(task, CapturePoint::kResidualBeforeSteering, row, h, size);
    if (args.steering != nullptr) SteerRow(task, row, h, size);
    CaptureRow(task, CapturePoint::kResidual, row, h, size);
    if (args.probes != nullptr) ProbeRow(task, row, h, size);
  }
  Normalise(task, h, size, normed);
  if (args.is_last) CaptureRow(task, CapturePoint::kFinalNorm, row, normed, size);
}

void RunNormTask(const NormTask& task) {
  for (int64_t row = task.first_row; row < task.last_row; ++row) RunRow(task, row);
}

}  // namespace llama_steer::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llama_steer::cpu {
namespace {
HWY_EXPORT(RunNormTask);
constexpr int64_t kRowsPerTask = 8;
}  // namespace

void ApplyResidualSteerNorm(const ResidualSteerNorm& args, const StepTables& step,
                            const std::vector<VectorRow>& vectors, ThreadPool& pool) {
  const auto rows = static_cast<int64_t>(step.positions.size());
  const int64_t tasks = (rows + kRowsPerTask - 1) / kRowsPerTask;
  std::vector<std::vector<float>> scratch(static_cast<size_t>(pool.threads()));
  pool.ParallelFor(tasks, [&](int64_t index, int32_t worker) {
    const int64_t first = index * kRowsPerTask;
    const NormTask task{&args,
                        &step,
                        &vectors,
                        first,
                        std::min(rows, first + kRowsPerTask),
                        &scratch[static_cast<size_t>(worker)]};
    HWY_DYNAMIC_DISPATCH(RunNormTask)(task);
  });
}

VectorRow MakeVectorRow(std::span<const float> values) {
  double squares = 0.0;
  for (const float value : values) squares += static_cast<double>(value) * value;
  const double norm = std::sqrt(squares);
  VectorRow row{{values.begin(), values.end()}, std::vector<float>(values.size(), 0.0f), 0.0f};
  if (norm > 0.0) {
    row.norm = static_cast<float>(norm);
    std::transform(values.begin(), values.end(), row.direction.begin(),
                   [norm](float value) { return static_cast<float>(value / norm); });
  }
  return row;
}

}  // namespace llama_steer::cpu
#endif
