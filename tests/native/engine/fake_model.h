// A model made of hashes. What it computes for a token depends on every token before it, read back
// through the block table, and on the steering of each; so a wrong block, a missed row or a wrong
// table changes what it says. It also checks the tables that it is given.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/model_runner.h"

namespace llama_steer {

/// A prompt that holds this token has logits that are not finite from there on.
inline constexpr uint32_t kPoisonToken = 7;

uint64_t Mix(uint64_t a, uint64_t b);

class FakeModel final : public ModelRunner {
 public:
  FakeModel(const LlamaConfig& config, int32_t blocks, int32_t block_tokens);

  const ModelInfo& info() const override { return info_; }
  StatusOr<int32_t> PutVectorRow(std::span<const float> row) override;
  void DropVectorRow(int32_t row) override;
  StatusOr<int32_t> PutAdapter(const MappedLora& lora) override;
  void DropAdapter(int32_t adapter) override;
  Status Forward(const ForwardStep& step) override;
  Status Unembed(std::span<const float* const> rows, bool normalise) override;
  Status Sample(std::span<const SampleRow> rows, std::span<SampleResult> results) override;
  Status CopyKvBlocks(std::span<const BlockCopy> copies) override;
  Status Sync() override { return Status::Ok(); }

  /// Called at the start of every Forward.
  std::function<Status(const ForwardStep&)> on_forward;
  /// What PutAdapter answers, unless it is ok.
  Status adapter_status;
  /// The rows of Unembed have logits that are not finite.
  bool unembeds_nonfinite = false;
  size_t most_unembedded_rows = 0;
  /// The score of every gate and probe on a token with this id is not a number.
  int64_t nan_token = -1;
  /// False: rows of logits are not compared.
  bool compares = true;
  int32_t vector_rows() const { return static_cast<int32_t>(vectors_.size()); }
  int32_t adapters() const { return static_cast<int32_t>(adapters_.size()); }

 private:
  struct Cell {
    uint64_t kv = 0;
    bool poisoned = false;
  };
  Status CheckTables(const ForwardStep& step) const;
  Status FindAdapters(const ForwardStep& step);
  Status ComputeRow(const ForwardStep& step, const SequenceSpan& span, int32_t row);
  StatusOr<uint64_t> Steer(const SteerTables& tables, int32_t row, int32_t position, int32_t layer,
                           uint64_t h);
  Status EvaluateGates(const SteerTables& tables, int32_t row, int32_t slot, int32_t position,
                       int32_t layer, uint64_t h);
  Status Probe(const ProbeTables& tables, int32_t row, int32_t position, int32_t layer, uint64_t h);
  void Capture(const CaptureTables* tables, int32_t row, CapturePoint point, int32_t layer,
               uint64_t h) const;
  Cell& CellAt(const StepTables& tables, const SequenceSpan& span, int32_t position);

  LlamaConfig config_;
  ModelInfo info_;
  std::vector<Cell> cells_;              // [blocks, block_tokens]
  std::map<int32_t, uint64_t> vectors_;  // device row -> content
  int32_t next_vector_row_ = 0;
  bool is_nan_row_ = false;               // the row that is being computed
  std::map<int32_t, uint64_t> adapters_;  // device index -> content
  int32_t next_adapter_ = 0;
  std::vector<uint64_t> row_adapter_;  // [T], 0: none
  std::vector<Cell> row_state_;        // [T]
  std::vector<Cell> logits_;           // [logit_rows]
};

}  // namespace llama_steer
