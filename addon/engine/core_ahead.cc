// The next step is begun while one runs, on a device that can: it is planned as if every sequence
// went on, and takes its tokens from where the running step leaves them. The host reads the running
// step back meanwhile. A sequence that turns out to have ended has a row in the next step that
// nobody reads: its blocks may have been given to others, but those write and read them in later
// steps, and steps run in the order in which they were begun.
#include "engine/core.h"

namespace llama_steer {
namespace {

/// All that comes of the item is one token of a completion.
bool OnlyDraws(const BatchItem& item) {
  const ScheduledRows& scheduled = item.scheduled;
  return scheduled.draws == 1 && scheduled.sequence->completion != kPromptOnly &&
         item.scored.empty() && item.captured.empty();
}

}  // namespace

Status EngineCore::Begin(DeviceStep& step) {
  LLAMA_STEER_RETURN_IF_ERROR(runner_.Forward(step.batch.forward()));
  if (runner_.runs_ahead()) {
    LLAMA_STEER_RETURN_IF_ERROR(runner_.BeginSample(step.batch.sample_rows()));
  }
  step.begun = true;
  return Status::Ok();
}

Status EngineCore::BeginNext() {
  // The lens may have used the device since; what the step drew is no longer there then.
  if (!runner_.runs_ahead() || step_->awaited) return Status::Ok();
  const std::optional<StepPlan> plan = PlanNext();
  if (!plan) return Status::Ok();
  next_->batch.Build(*plan);
  ++steps_ahead_;
  return Begin(*next_);
}

std::optional<StepPlan> EngineCore::PlanNext() {
  running_draws_.clear();
  for (const BatchItem& item : step_->batch.items()) {
    const Sequence& sequence = *item.scheduled.sequence;
    if (sequence.finished) continue;
    if (!OnlyDraws(item)) return std::nullopt;
    running_draws_.emplace(&sequence, static_cast<int32_t>(item.first_draw));
  }
  if (running_draws_.empty()) return std::nullopt;
  CollectSequences();
  return scheduler_.PlanAhead(sequences_, running_draws_);
}

Status EngineCore::Await(DeviceStep& step) {
  if (!step.begun || step.awaited) return Status::Ok();
  step.awaited = true;
  StepBatch& batch = step.batch;
  if (runner_.runs_ahead()) return runner_.AwaitStep(batch.sample_rows(), batch.results());
  if (!batch.sample_rows().empty()) {
    LLAMA_STEER_RETURN_IF_ERROR(runner_.Sample(batch.sample_rows(), batch.results()));
  }
  return runner_.Sync();
}

Status EngineCore::Settle() {
  const Status first = Await(*step_);
  const Status second = Await(*next_);
  return first.ok() ? second : first;
}

}  // namespace llama_steer
