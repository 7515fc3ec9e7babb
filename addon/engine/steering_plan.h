// The steering tables of one step, and the proof that comes back in them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "engine/sequence.h"

namespace llama_steer {

class SteeringPlan {
 public:
  explicit SteeringPlan(int32_t layers) : layers_(layers) {}

  /// Starts the plan of a step of `rows` rows.
  void Begin(int32_t rows);
  /// Rows [first_row, first_row + positions.size()) of the step belong to `sequence`.
  void AddRows(const Sequence& sequence, int32_t first_row, PositionRange positions);
  /// Null when no row of the step is steered. Valid until Begin().
  const SteerTables* Finish();

  /// What the kernel reported for a row, one a steering of its request; empty for a row that no
  /// steering acts on.
  std::span<const SteerProof> ProofOf(int32_t row) const;

 private:
  int32_t SlotOf(const Sequence& sequence);
  void BuildOps();
  void AddEntries(const Sequence& sequence, int32_t layer);

  int32_t layers_;
  /// By slot; slot 0 is nobody's. Completions of a request share one while they act alike.
  std::vector<const Sequence*> sequences_;
  std::vector<int32_t> row_slot_;          // [rows]
  std::vector<SteerOpRange> ranges_;       // [layers, slots]
  std::vector<SteerOpRange> gate_ranges_;  // [layers, slots]
  std::vector<SteerOp> ops_;
  std::vector<SteerGate> gates_;
  std::vector<SteerProof> proof_;  // [rows, stride]
  size_t stride_ = 0;
  SteerTables tables_;
};

}  // namespace llama_steer
