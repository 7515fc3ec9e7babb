// The tables of one step, made from the scheduler's plan.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/model_runner.h"
#include "engine/probe.h"
#include "engine/scheduler.h"
#include "engine/steering_plan.h"

namespace llama_steer {

/// Where a scheduled sequence lies in the step and what is read back for it.
struct BatchItem {
  ScheduledRows scheduled;
  PositionRange positions;
  int32_t first_row = 0;
  PositionRange scored;     // rows that score the next prompt token
  size_t first_score = 0;   // index of their results
  size_t first_draw = 0;    // index of the results of its draws
  PositionRange captured;   // for the client, or for the gates on the prompt while they are open
  int32_t staging_row = 0;  // of the first captured position
};

struct BatchLimits {
  int32_t layers = 0;
  int32_t hidden_size = 0;
  int64_t max_capture_rows = 0;
};

/// Where captured rows arrive, `[max_capture_rows, hidden_size]`; made on first use. Of the steps
/// that run at once at most one captures.
class CaptureArea {
 public:
  explicit CaptureArea(const BatchLimits& limits)
      : values_(static_cast<size_t>(limits.max_capture_rows) *
                static_cast<size_t>(limits.hidden_size)) {}

  void Make() {
    if (!data_) data_ = std::make_unique_for_overwrite<float[]>(values_);
  }
  float* data() const { return data_.get(); }

 private:
  size_t values_;
  std::unique_ptr<float[]> data_;
};

class StepBatch {
 public:
  /// `area` outlives the batch.
  StepBatch(const BatchLimits& limits, CaptureArea& area)
      : limits_(limits), area_(&area), steering_(limits.layers), probes_(limits.layers) {}

  void Build(const StepPlan& plan);

  std::span<const BatchItem> items() const { return items_; }
  /// Valid until Build().
  ForwardStep forward() const;
  std::span<const SampleRow> sample_rows() const { return sample_rows_; }
  std::span<SampleResult> results() { return results_; }

  uint32_t TokenOfRow(int32_t row) const {
    return static_cast<uint32_t>(token_ids_[static_cast<size_t>(row)]);
  }
  std::span<const SteerProof> ProofOf(int32_t row) const { return steering_.ProofOf(row); }
  const ProbePlan& probes() const { return probes_; }
  /// Staging rows of an item, `[captured tokens, rows_per_token, hidden_size]`.
  const float* StagingOf(const BatchItem& item) const {
    return area_->data() + int64_t{item.staging_row} * limits_.hidden_size;
  }

 private:
  void Clear(const StepPlan& plan);
  void AddItem(const ScheduledRows& scheduled);
  void AddAdapter(const BatchItem& item);
  void AddCapture(BatchItem& item);
  void Keep(BatchItem& item, PositionRange wanted, std::span<const int32_t> device_sites);
  void AddSampling(BatchItem& item);

  BatchLimits limits_;
  CaptureArea* area_;
  std::vector<BatchItem> items_;
  std::vector<int32_t> token_ids_;  // [rows]
  std::vector<int32_t> positions_;  // [rows]
  std::vector<int32_t> drawn_;      // [rows], see StepTables
  bool has_drawn_ = false;          // one of them is not -1
  std::vector<SequenceSpan> spans_;
  std::vector<int32_t> block_table_;
  std::vector<int32_t> logit_rows_;
  std::vector<AdapterRows> adapters_;
  std::vector<ScheduledRows> by_adapter_;  // the plan's items
  std::vector<SampleRow> sample_rows_;
  std::vector<SampleResult> results_;
  int32_t reference_row_ = -1;  // logits of the shadow that was added last, for the next item

  SteeringPlan steering_;
  const SteerTables* steer_tables_ = nullptr;
  ProbePlan probes_;
  const ProbeTables* probe_tables_ = nullptr;

  std::vector<int32_t> capture_slot_;  // [rows]
  std::vector<int32_t> capture_base_;  // [rows]
  std::vector<int32_t> site_ordinal_;  // [slots, sites]
  int32_t staging_rows_ = 0;           // used in this step
  CaptureTables capture_tables_;
};

}  // namespace llama_steer
