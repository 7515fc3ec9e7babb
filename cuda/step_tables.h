// The tables of one step in device memory, copied once, whatever the number of operations that use
// them: backend.h promises that they do not change before the step has ended.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "kernels/attention.h"
#include "uploads.h"

namespace llama_steer::cuda {

/// StepTables, and what can be said of each row alone.
struct DeviceStep {
  int32_t rows = 0;
  const int32_t* token_ids = nullptr;   // [rows]
  const int32_t* drawn = nullptr;       // [rows], see StepTables; null: none
  const int32_t* positions = nullptr;   // [rows]
  const int32_t* row_spans = nullptr;   // [rows], index into spans; -1: none
  const int32_t* row_blocks = nullptr;  // [rows], KV block of the row's position; -1: none
  const SequenceSpan* spans = nullptr;
  const int32_t* block_table = nullptr;
};

/// How attention is divided among blocks.
struct DeviceAttentionItems {
  const PrefillItem* prefill = nullptr;
  int32_t prefill_count = 0;
  const int32_t* decode = nullptr;  // indices of spans
  int32_t decode_count = 0;
  int32_t max_splits = 0;
};

class StepUpload {
 public:
  explicit StepUpload(Uploads& uploads) : uploads_(uploads) {}

  /// Copies the tables unless they are those of the last call since Forget().
  Status Prepare(const StepTables& step);
  const DeviceStep& step() const { return device_; }
  /// Of the prepared step; `group`: query heads of a key/value head.
  Status PrepareAttention(const StepTables& step, int32_t group);
  const DeviceAttentionItems& attention() const { return items_; }

  /// Takes tables that are on the device already for those of `step`.
  void Adopt(const StepTables& step, const DeviceStep& device, const DeviceAttentionItems& items);

  void Forget();

 private:
  bool IsPrepared(const StepTables& step) const;
  void DescribeRows(const StepTables& step);

  Uploads& uploads_;
  bool prepared_ = false;
  StepTables source_;  // compared by address, never read
  DeviceStep device_;
  int32_t items_group_ = 0;  // 0: no items yet
  bool adopted_ = false;     // items are there, whatever the group
  DeviceAttentionItems items_;
  std::vector<int32_t> row_spans_;
  std::vector<int32_t> row_blocks_;
  std::vector<PrefillItem> prefill_;
  std::vector<int32_t> decode_;
};

}  // namespace llama_steer::cuda
