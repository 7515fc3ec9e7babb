#include "steer_tables.h"

namespace llama_steer::cuda {

DeviceSteerOp SteerUpload::DeviceOp(const SteerOp& op) const {
  const VectorRow& vector = vectors_.at(op.vector_row);
  return {.kind = op.kind,
          .preserve_norm = op.preserve_norm,
          .inert = op.inert,
          .gated = op.gated,
          .steering_index = op.steering_index,
          .coefficient = op.coefficient,
          .clamp_min = op.clamp_min,
          .clamp_max = op.clamp_max,
          .position_begin = op.position_begin,
          .position_end = op.position_end,
          .norm = vector.norm,
          .values = vector.values,
          .direction = vector.direction};
}

DeviceSteerGate SteerUpload::DeviceGate(const SteerGate& gate) const {
  const VectorRow& vector = vectors_.at(gate.vector_row);
  return {.metric = gate.metric,
          .comparator = gate.comparator,
          .steering_index = gate.steering_index,
          .threshold = gate.threshold,
          .position_begin = gate.position_begin,
          .position_end = gate.position_end,
          .vector = gate.metric == GateMetric::kDot ? vector.values : vector.direction};
}

Status SteerUpload::PutGates(const SteerTables& tables) {
  device_.gates = nullptr;
  if (tables.gates.empty()) return Status::Ok();
  gates_.clear();
  for (const SteerGate& gate : tables.gates) gates_.push_back(DeviceGate(gate));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<DeviceSteerGate>(gates_, device_.gates));
  return uploads_.Put<SteerOpRange>(tables.gate_ranges, device_.gate_ranges);
}

std::span<const DeviceSteerOp> SteerUpload::Describe(std::span<const SteerOp> ops) {
  ops_.clear();
  for (const SteerOp& op : ops) ops_.push_back(DeviceOp(op));
  return ops_;
}

Status SteerUpload::Adopt(const SteerTables& tables, const DeviceSteerTables& device) {
  if (prepared_) return Status::Internal("two sets of steering tables in one step");
  device_ = device;
  const size_t count = tables.row_slot.size() * static_cast<size_t>(tables.proof_stride);
  LLAMA_STEER_RETURN_IF_ERROR(proof_.Adopt(tables.proof, count, device.proof));
  source_ = tables;
  prepared_ = true;
  return Status::Ok();
}

Status SteerUpload::Prepare(const SteerTables& tables) {
  if (prepared_ && tables.ops.data() == source_.ops.data() && tables.proof == source_.proof &&
      tables.row_slot.data() == source_.row_slot.data()) {
    return Status::Ok();
  }
  if (prepared_) return Status::Internal("two sets of steering tables in one step");
  const std::span<const DeviceSteerOp> ops = Describe(tables.ops);
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(tables.row_slot, device_.row_slot));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<SteerOpRange>(tables.ranges, device_.ranges));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<DeviceSteerOp>(ops, device_.ops));
  LLAMA_STEER_RETURN_IF_ERROR(PutGates(tables));
  device_.slots = tables.slots;
  device_.proof_stride = tables.proof_stride;
  const size_t count = tables.row_slot.size() * static_cast<size_t>(tables.proof_stride);
  LLAMA_STEER_RETURN_IF_ERROR(proof_.Send(tables.proof, count, uploads_, device_.proof));
  source_ = tables;
  prepared_ = true;
  return Status::Ok();
}

void SteerUpload::EndTurn() {
  proof_.EndTurn();
  Forget();
}

Status ProbeUpload::Prepare(const ProbeTables& tables) {
  if (prepared_ && tables.ops.data() == source_.ops.data() && tables.scores == source_.scores &&
      tables.row_slot.data() == source_.row_slot.data()) {
    return Status::Ok();
  }
  if (prepared_) return Status::Internal("two sets of probe tables in one step");
  ops_.clear();
  for (const ProbeOp& op : tables.ops) {
    ops_.push_back({.probe_index = op.probe_index,
                    .position_begin = op.position_begin,
                    .position_end = op.position_end,
                    .values = vectors_.at(op.vector_row).values});
  }
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(tables.row_slot, device_.row_slot));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<SteerOpRange>(tables.ranges, device_.ranges));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<DeviceProbeOp>(ops_, device_.ops));
  device_.slots = tables.slots;
  device_.score_stride = tables.score_stride;
  const size_t count = tables.row_slot.size() * static_cast<size_t>(tables.score_stride);
  LLAMA_STEER_RETURN_IF_ERROR(scores_.Send(tables.scores, count, uploads_, device_.scores));
  source_ = tables;
  prepared_ = true;
  return Status::Ok();
}

void ProbeUpload::EndTurn() {
  scores_.EndTurn();
  Forget();
}

}  // namespace llama_steer::cuda
