#include "engine/steering_plan.h"

#include <algorithm>

namespace llama_steer {
namespace {

SteerOp OpOf(const SteeringEntry& entry, size_t steering_index, int32_t layer) {
  const SteeringParams& params = entry.params;
  return {.kind = params.kind,
          .preserve_norm = params.preserve_norm,
          .inert = entry.inert,
          .steering_index = static_cast<int32_t>(steering_index),
          .vector_row = entry.vector->DeviceRow(layer),
          .coefficient = params.coefficient,
          .clamp_min = params.clamp_min,
          .clamp_max = params.clamp_max,
          .position_begin = params.position_begin,
          .position_end = params.position_end};
}

}  // namespace

void SteeringPlan::Begin(int32_t rows) {
  requests_.assign(1, nullptr);
  row_slot_.assign(static_cast<size_t>(rows), 0);
  stride_ = 0;
}

int32_t SteeringPlan::SlotOf(const RequestState& request) {
  const auto found = std::ranges::find(requests_, &request);
  if (found != requests_.end()) return static_cast<int32_t>(found - requests_.begin());
  requests_.push_back(&request);
  stride_ = std::max(stride_, request.steering.size());
  return static_cast<int32_t>(requests_.size()) - 1;
}

void SteeringPlan::AddRows(const RequestState& request, int32_t first_row,
                           PositionRange positions) {
  for (const SteeringEntry& entry : request.steering) {
    const PositionRange acted = Intersect(entry.positions(), positions);
    if (acted.empty()) continue;
    const int32_t slot = SlotOf(request);
    const auto begin = row_slot_.begin() + first_row + (acted.begin - positions.begin);
    std::fill(begin, begin + acted.size(), slot);
  }
}

const SteerTables* SteeringPlan::Finish() {
  if (requests_.size() == 1) return nullptr;
  BuildOps();
  proof_.assign(row_slot_.size() * stride_, SteerProof{});
  tables_ = {.row_slot = row_slot_,
             .ranges = ranges_,
             .slots = static_cast<int32_t>(requests_.size()),
             .ops = ops_,
             .proof = proof_.data(),
             .proof_stride = static_cast<int32_t>(stride_)};
  return &tables_;
}

void SteeringPlan::BuildOps() {
  ranges_.clear();
  ops_.clear();
  for (int32_t layer = 0; layer < layers_; ++layer) {
    for (const RequestState* request : requests_) {
      const auto begin = static_cast<int32_t>(ops_.size());
      for (size_t i = 0; request != nullptr && i < request->steering.size(); ++i) {
        const SteeringEntry& entry = request->steering[i];
        if (std::ranges::binary_search(entry.params.layers, layer)) {
          ops_.push_back(OpOf(entry, i, layer));
        }
      }
      ranges_.push_back({.begin = begin, .end = static_cast<int32_t>(ops_.size())});
    }
  }
}

std::span<const SteerProof> SteeringPlan::ProofOf(int32_t row) const {
  const auto index = static_cast<size_t>(row);
  const int32_t slot = row_slot_[index];
  if (slot == 0) return {};
  return std::span(proof_).subspan(index * stride_,
                                   requests_[static_cast<size_t>(slot)]->steering.size());
}

}  // namespace llama_steer
