#include "engine/ahead_runner.h"

#include <algorithm>
#include <utility>

namespace llama_steer {

Status AheadRunner::Idle() const {
  return begun_.empty() ? Status::Ok() : Status::Internal("the device is used while a step runs");
}

StatusOr<int32_t> AheadRunner::PutVectorRow(std::span<const float> row) {
  const std::lock_guard lock(mutex_);
  return inner_->PutVectorRow(row);
}

void AheadRunner::DropVectorRow(int32_t row) {
  const std::lock_guard lock(mutex_);
  inner_->DropVectorRow(row);
}

StatusOr<int32_t> AheadRunner::PutAdapter(const MappedLora& lora) {
  const std::lock_guard lock(mutex_);
  return inner_->PutAdapter(lora);
}

void AheadRunner::DropAdapter(int32_t adapter) {
  const std::lock_guard lock(mutex_);
  inner_->DropAdapter(adapter);
}

Status AheadRunner::Forward(const ForwardStep& step) {
  if (begun_.size() == 2) return Status::Internal("a third step is begun");
  if (!begun_.empty() && step.capture != nullptr) {
    return Status::Internal("a step captures while another one runs");
  }
  for (const int32_t result : step.tables.drawn) {
    if (result >= static_cast<int32_t>(last_rows_)) return Status::Internal("no such result");
    if (result >= 0) ++unseen_rows_;
    if (result >= 0 && begun_.empty()) return Status::Internal("the token has been seen");
  }
  open_ = step;
  return Status::Ok();
}

Status AheadRunner::BeginSample(std::span<const SampleRow> rows) {
  if (!begun_.empty()) ++steps_ahead_;
  last_rows_ = rows.size();
  const std::shared_future<Status> before =
      begun_.empty() ? std::shared_future<Status>() : begun_.back().done;
  Begun& begun = begun_.emplace_back(Begun{open_, rows, {}, {}});
  const auto policy = pace_ == Pace::kLate ? std::launch::deferred : std::launch::async;
  begun.done = std::async(policy, [this, &begun, before] {
    if (before.valid()) before.wait();
    return Run(begun);
  });
  return Status::Ok();
}

Status AheadRunner::Run(Begun& begun) {
  const std::lock_guard lock(mutex_);
  ForwardStep step = begun.step;
  std::vector<int32_t> token_ids(step.tables.token_ids.begin(), step.tables.token_ids.end());
  for (size_t row = 0; row < step.tables.drawn.size(); ++row) {
    const int32_t result = step.tables.drawn[row];
    if (result >= 0) token_ids[row] = static_cast<int32_t>(drawn_[static_cast<size_t>(result)]);
  }
  step.tables.token_ids = token_ids;
  step.tables.drawn = {};
  LLAMA_STEER_RETURN_IF_ERROR(inner_->Forward(step));
  begun.results.resize(begun.rows.size());
  if (!begun.rows.empty()) {
    LLAMA_STEER_RETURN_IF_ERROR(inner_->Sample(begun.rows, begun.results));
  }
  drawn_.clear();
  for (const SampleResult& result : begun.results) {
    drawn_.push_back(result.nonfinite ? 0 : result.token_id);
  }
  return inner_->Sync();
}

Status AheadRunner::AwaitStep(std::span<const SampleRow> rows, std::span<SampleResult> results) {
  if (begun_.empty()) return Status::Internal("no step runs");
  Begun& begun = begun_.front();
  if (rows.data() != begun.rows.data() || rows.size() != begun.rows.size()) {
    return Status::Internal("another step was begun first");
  }
  Status status = begun.done.get();
  if (status.ok()) std::ranges::move(begun.results, results.begin());
  begun_.pop_front();
  return status;
}

Status AheadRunner::Unembed(std::span<const float* const> rows, bool normalise) {
  LLAMA_STEER_RETURN_IF_ERROR(Idle());
  return inner_->Unembed(rows, normalise);
}

Status AheadRunner::Sample(std::span<const SampleRow> rows, std::span<SampleResult> results) {
  LLAMA_STEER_RETURN_IF_ERROR(Idle());
  last_rows_ = 0;
  return inner_->Sample(rows, results);
}

Status AheadRunner::CopyKvBlocks(std::span<const BlockCopy> copies) {
  LLAMA_STEER_RETURN_IF_ERROR(Idle());
  return inner_->CopyKvBlocks(copies);
}

Status AheadRunner::Sync() {
  LLAMA_STEER_RETURN_IF_ERROR(Idle());
  return inner_->Sync();
}

}  // namespace llama_steer
