// Projections, and what is taken in one pass with them.
#include <algorithm>

#include "cuda_backend.h"
#include "kernels/copy_rows.h"
#include "kernels/linear.h"
#include "kernels/rope_append.h"
#include "kernels/silu_mul.h"

namespace llama_steer::cuda {
namespace {

bool IsForTensorCores(DType dtype) { return dtype != DType::kF32 && dtype != DType::kF16; }

}  // namespace

Status CudaBackend::Linear(Activations x, int64_t rows, std::span<const LinearTarget> targets) {
  size_t first = 0;
  for (size_t i = 1; i <= targets.size(); ++i) {
    if (i < targets.size() && i - first < kMaxLinearTargets &&
        targets[i].weight->dtype == targets[first].weight->dtype) {
      continue;
    }
    LLAMA_STEER_RETURN_IF_ERROR(LinearOfOneType(x, rows, targets.subspan(first, i - first)));
    first = i;
  }
  return Status::Ok();
}

LinearParams CudaBackend::LinearParamsOf(const Activations& x, int64_t rows,
                                         std::span<const LinearTarget> targets) {
  LinearParams params;
  params.x = activations_.matrix(x);
  params.rows = PaddedRows(rows);
  for (const LinearTarget& target : targets) {
    LinearTargetView& view = params.targets[params.target_count++];
    view.weight = cuda::AsCuda(*target.weight).view();
    if (target.bias != nullptr) view.bias = cuda::AsCuda(*target.bias).view();
    view.output = Floats(target.output);
    WroteValuesOnly(target.output);
  }
  return params;
}

Status CudaBackend::RoundRows(const Activations& x, int64_t rows) {
  ActivationBuffer& buffer = activations_.of(x);
  if (buffer.rounded_rows >= rows) return Status::Ok();
  buffer.rounded_rows = rows;
  return ToStatus(cuda::RoundRows({activations_.matrix(x), rows}, stream_), "rounding activations");
}

Status CudaBackend::LinearOfOneType(const Activations& x, int64_t rows,
                                    std::span<const LinearTarget> targets) {
  const LinearParams params = LinearParamsOf(x, rows, targets);
  if (!IsForTensorCores(targets[0].weight->dtype)) {
    return ToStatus(LinearExact(params, stream_), "linear in float32");
  }
  LLAMA_STEER_RETURN_IF_ERROR(RoundRows(x, params.rows));
  if (params.rows <= kMaxGemvRows) return ToStatus(LinearGemv(params, stream_), "linear");
  LinearGemmParams many{params, SplitOf(params, multiprocessors_)};
  LLAMA_STEER_RETURN_IF_ERROR(ReserveSplit(many.split));
  return ToStatus(LinearGemm(many, stream_), "linear");
}

Status CudaBackend::ReserveSplit(LinearSplit& split) {
  if (split.count == 1) return Status::Ok();
  LLAMA_STEER_RETURN_IF_ERROR(gemm_partials_.Reserve(split.partial_bytes()));
  const size_t before = gemm_arrived_.bytes();
  const auto tiles = static_cast<size_t>(split.tiles);
  LLAMA_STEER_RETURN_IF_ERROR(gemm_arrived_.Reserve(tiles * sizeof(unsigned)));
  split.partials = gemm_partials_.as<float>();
  split.arrived = gemm_arrived_.as<unsigned>();
  if (gemm_arrived_.bytes() == before) return Status::Ok();
  return ToStatus(cudaMemsetAsync(split.arrived, 0, gemm_arrived_.bytes(), stream_),
                  "clearing counters");
}

bool CudaBackend::Fuses(int64_t rows, std::span<const LinearTarget> targets,
                        std::span<const LoraTerm> adapters) const {
  const DType dtype = targets[0].weight->dtype;
  return adapters.empty() && PaddedRows(rows) <= kMaxGemvRows && IsForTensorCores(dtype) &&
         std::ranges::all_of(targets,
                             [&](const LinearTarget& t) { return t.weight->dtype == dtype; });
}

Status CudaBackend::GatedLinear(Activations x, int64_t rows, const LinearTarget& gate,
                                const LinearTarget& up, std::span<const LoraTerm> adapters) {
  const LinearTarget targets[] = {gate, up};
  if (!Fuses(rows, targets, adapters)) return Backend::GatedLinear(x, rows, gate, up, adapters);
  const GatedLinearParams params{LinearParamsOf(x, rows, targets),
                                 activations_.matrix(gate.output)};
  LLAMA_STEER_RETURN_IF_ERROR(RoundRows(x, params.linear.rows));
  WroteRounded(gate.output, params.linear.rows);
  return ToStatus(LinearGemvGated(params, stream_), "gate and up");
}

Status CudaBackend::QkvRopeAppend(Activations x, std::span<const LinearTarget, 3> qkv,
                                  std::span<const LoraTerm> adapters, const RopeTable& rope,
                                  const StepTables& step, int32_t layer, KvCache& cache) {
  const auto rows = static_cast<int64_t>(step.positions.size());
  if (!Fuses(rows, qkv, adapters) || !HasQkvGemv(cache.shape.head_size)) {
    return Backend::QkvRopeAppend(x, qkv, adapters, rope, step, layer, cache);
  }
  LLAMA_STEER_RETURN_IF_ERROR(step_.Prepare(step));
  LLAMA_STEER_RETURN_IF_ERROR(TurnsOf(rope));
  const QkvLinearParams params{LinearParamsOf(x, rows, qkv),
                               RopeParamsOf(layer, qkv[0].output, cache)};
  LLAMA_STEER_RETURN_IF_ERROR(RoundRows(x, params.linear.rows));
  return ToStatus(LinearGemvQkv(params, stream_), "q, k and v");
}

Status CudaBackend::AddLora(Activations x, std::span<const LoraTerm> terms) {
  for (const LoraTerm& term : terms) WroteValuesOnly(term.output);
  return lora_.Add(Floats(x), terms);
}

Status CudaBackend::SiluMul(int64_t rows, Activations gate, Activations up) {
  rows = PaddedRows(rows);
  WroteRounded(gate, rows);
  return ToStatus(cuda::SiluMul({activations_.matrix(gate), Floats(up), rows}, stream_),
                  "silu and multiply");
}

Status CudaBackend::TurnsOf(const RopeTable& rope) {
  const bool same = rope.inverse_frequencies == inverse_frequencies_;
  if (same && turns_ready_) return Status::Ok();
  const size_t bytes = rope.inverse_frequencies.size() * sizeof(float);
  if (!same) {
    inverse_frequencies_ = rope.inverse_frequencies;
    ++frequencies_version_;
    LLAMA_STEER_RETURN_IF_ERROR(device_frequencies_.Grow(bytes));
    const char* what = "copying rope frequencies";
    LLAMA_STEER_RETURN_IF_ERROR(
        ToStatus(cudaMemcpyAsync(device_frequencies_.as<void>(), inverse_frequencies_.data(), bytes,
                                 cudaMemcpyHostToDevice, stream_),
                 what));
    LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream_), what));
  }
  const DeviceStep& step = step_.step();
  LLAMA_STEER_RETURN_IF_ERROR(turns_.Reserve(2 * bytes * static_cast<size_t>(step.rows)));
  const RopeTurnsParams params{step.positions, device_frequencies_.as<float>(), step.rows,
                               static_cast<int32_t>(inverse_frequencies_.size()),
                               turns_.as<float>()};
  turns_ready_ = true;
  return ToStatus(RopeTurns(params, stream_), "rope angles");
}

RopeAppendParams CudaBackend::RopeParamsOf(int32_t layer, const Activations& q,
                                           const KvCache& cache) const {
  RopeAppendParams params;
  params.turns = turns_.as<float>();
  params.positions = step_.step().positions;
  params.row_blocks = step_.step().row_blocks;
  params.rows = step_.step().rows;
  params.query_heads = static_cast<int32_t>(q.cols / cache.shape.head_size);
  params.pages = AsCuda(cache).pages();
  params.layer = layer;
  return params;
}

Status CudaBackend::RopeAppendKv(const RopeTable& rope, const StepTables& step, int32_t layer,
                                 Activations q, Activations k, Activations v, KvCache& cache) {
  LLAMA_STEER_RETURN_IF_ERROR(step_.Prepare(step));
  LLAMA_STEER_RETURN_IF_ERROR(TurnsOf(rope));
  RopeAppendParams params = RopeParamsOf(layer, q, cache);
  params.q = Floats(q);
  params.k = Floats(k);
  params.v = Floats(v);
  WroteValuesOnly(q);
  WroteValuesOnly(k);
  return ToStatus(RopeAppend(params, stream_), "rope and append");
}

}  // namespace llama_steer::cuda
