#include "engine/steering_plan.h"

#include <algorithm>

namespace llama_steer {
namespace {

SteerOp OpOf(const SteeringEntry& entry, PositionRange acts, size_t steering_index, int32_t layer) {
  const SteeringParams& params = entry.params;
  return {.kind = params.kind,
          .preserve_norm = params.preserve_norm,
          .inert = entry.inert,
          .gated = entry.gated_by_token(),
          .steering_index = static_cast<int32_t>(steering_index),
          .vector_row = entry.vector->DeviceRow(layer),
          .coefficient = params.coefficient,
          .clamp_min = params.clamp_min,
          .clamp_max = params.clamp_max,
          .position_begin = acts.begin,
          .position_end = acts.end};
}

SteerGate GateOf(const SteeringEntry& entry, PositionRange acts, size_t steering_index) {
  const GateParams& params = *entry.params.gate;
  return {.metric = params.metric,
          .comparator = params.comparator,
          .steering_index = static_cast<int32_t>(steering_index),
          .vector_row = entry.gate_vector->DeviceRow(params.layer),
          .threshold = params.threshold,
          .position_begin = acts.begin,
          .position_end = acts.end};
}

int32_t SizeOf(const auto& items) { return static_cast<int32_t>(items.size()); }

}  // namespace

void SteeringPlan::Begin(int32_t rows) {
  sequences_.assign(1, nullptr);
  row_slot_.assign(static_cast<size_t>(rows), 0);
  stride_ = 0;
}

int32_t SteeringPlan::SlotOf(const Sequence& sequence) {
  const auto found = std::ranges::find_if(sequences_, [&sequence](const Sequence* other) {
    return other != nullptr && other->request == sequence.request && other->acts == sequence.acts;
  });
  if (found != sequences_.end()) return static_cast<int32_t>(found - sequences_.begin());
  sequences_.push_back(&sequence);
  stride_ = std::max(stride_, sequence.acts.size());
  return SizeOf(sequences_) - 1;
}

void SteeringPlan::AddRows(const Sequence& sequence, int32_t first_row, PositionRange positions) {
  for (const PositionRange acts : sequence.acts) {
    const PositionRange acted = Intersect(acts, positions);
    if (acted.empty()) continue;
    const int32_t slot = SlotOf(sequence);
    const auto begin = row_slot_.begin() + first_row + (acted.begin - positions.begin);
    std::fill(begin, begin + acted.size(), slot);
  }
}

const SteerTables* SteeringPlan::Finish() {
  if (sequences_.size() == 1) return nullptr;
  BuildOps();
  proof_.assign(row_slot_.size() * stride_, SteerProof{});
  tables_ = {.row_slot = row_slot_,
             .ranges = ranges_,
             .slots = SizeOf(sequences_),
             .ops = ops_,
             .proof = proof_.data(),
             .proof_stride = static_cast<int32_t>(stride_),
             .gates = gates_,
             .gate_ranges = gate_ranges_};
  return &tables_;
}

void SteeringPlan::BuildOps() {
  ranges_.clear();
  gate_ranges_.clear();
  ops_.clear();
  gates_.clear();
  for (int32_t layer = 0; layer < layers_; ++layer) {
    for (const Sequence* sequence : sequences_) {
      const int32_t first_op = SizeOf(ops_);
      const int32_t first_gate = SizeOf(gates_);
      if (sequence != nullptr) AddEntries(*sequence, layer);
      ranges_.push_back({.begin = first_op, .end = SizeOf(ops_)});
      gate_ranges_.push_back({.begin = first_gate, .end = SizeOf(gates_)});
    }
  }
}

void SteeringPlan::AddEntries(const Sequence& sequence, int32_t layer) {
  const std::vector<SteeringEntry>& entries = sequence.request->steering;
  for (size_t i = 0; i < entries.size(); ++i) {
    const SteeringEntry& entry = entries[i];
    const PositionRange acts = sequence.acts[i];
    if (entry.gated_by_token() && entry.params.gate->layer == layer) {
      gates_.push_back(GateOf(entry, acts, i));
    }
    if (std::ranges::binary_search(entry.params.layers, layer)) {
      ops_.push_back(OpOf(entry, acts, i, layer));
    }
  }
}

std::span<const SteerProof> SteeringPlan::ProofOf(int32_t row) const {
  const auto index = static_cast<size_t>(row);
  const int32_t slot = row_slot_[index];
  if (slot == 0) return {};
  return std::span(proof_).subspan(index * stride_,
                                   sequences_[static_cast<size_t>(slot)]->acts.size());
}

}  // namespace llama_steer
