#include "step_tables.h"

#include <algorithm>

namespace llama_steer::cuda {
namespace {

template <class T>
bool SameSpan(std::span<const T> a, std::span<const T> b) {
  return a.data() == b.data() && a.size() == b.size();
}

}  // namespace

void StepUpload::Forget() {
  prepared_ = false;
  items_group_ = 0;
  adopted_ = false;
}

void StepUpload::Adopt(const StepTables& step, const DeviceStep& device,
                       const DeviceAttentionItems& items) {
  source_ = step;
  device_ = device;
  items_ = items;
  prepared_ = adopted_ = true;
}

bool StepUpload::IsPrepared(const StepTables& step) const {
  return prepared_ && SameSpan(step.token_ids, source_.token_ids) &&
         SameSpan(step.drawn, source_.drawn) && SameSpan(step.positions, source_.positions) &&
         SameSpan(step.sequences, source_.sequences) &&
         SameSpan(step.block_table, source_.block_table);
}

void StepUpload::DescribeRows(const StepTables& step) {
  const size_t rows = std::max(step.token_ids.size(), step.positions.size());
  device_.rows = static_cast<int32_t>(rows);
  row_spans_.assign(rows, -1);
  row_blocks_.assign(rows, -1);
  for (size_t s = 0; s < step.sequences.size(); ++s) {
    const SequenceSpan& span = step.sequences[s];
    for (int32_t i = 0; i < span.row_count; ++i) {
      const auto row = static_cast<size_t>(span.first_row + i);
      const int32_t page = (span.first_position + i) / kPageTokens;
      row_spans_[row] = static_cast<int32_t>(s);
      row_blocks_[row] = step.block_table[static_cast<size_t>(span.block_table_offset + page)];
    }
  }
}

Status StepUpload::Prepare(const StepTables& step) {
  if (IsPrepared(step)) return Status::Ok();
  Forget();
  DescribeRows(step);
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(step.token_ids, device_.token_ids));
  device_.drawn = nullptr;
  if (!step.drawn.empty()) {
    LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(step.drawn, device_.drawn));
  }
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(step.positions, device_.positions));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(row_spans_, device_.row_spans));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(row_blocks_, device_.row_blocks));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<SequenceSpan>(step.sequences, device_.spans));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(step.block_table, device_.block_table));
  source_ = step;
  prepared_ = true;
  return Status::Ok();
}

Status StepUpload::PrepareAttention(const StepTables& step, int32_t group) {
  if (adopted_ || items_group_ == group) return Status::Ok();
  prefill_.clear();
  decode_.clear();
  items_.max_splits = 0;
  for (size_t s = 0; s < step.sequences.size(); ++s) {
    const SequenceSpan& span = step.sequences[s];
    const int32_t rows = span.row_count * group;
    if (rows <= kDecodeRows) {
      decode_.push_back(static_cast<int32_t>(s));
      const int32_t last = span.first_position + span.row_count - 1;
      items_.max_splits = std::max(items_.max_splits, last / kSplitTokens + 1);
      continue;
    }
    for (int32_t first = 0; first < rows; first += kPrefillRows) {
      prefill_.push_back({static_cast<int32_t>(s), first});
    }
  }
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<PrefillItem>(prefill_, items_.prefill));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(decode_, items_.decode));
  items_.prefill_count = static_cast<int32_t>(prefill_.size());
  items_.decode_count = static_cast<int32_t>(decode_.size());
  items_group_ = group;
  return Status::Ok();
}

}  // namespace llama_steer::cuda
