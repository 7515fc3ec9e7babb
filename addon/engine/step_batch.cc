#include "engine/step_batch.h"

#include <algorithm>
#include <utility>

#include "engine/sampling.h"

namespace llama_steer {
namespace {

int32_t AdapterOf(const ScheduledRows& scheduled) {
  const auto& adapter = scheduled.sequence->request->adapter;
  return adapter == nullptr ? -1 : adapter->device_index();
}

}  // namespace

void StepBatch::Clear(const StepPlan& plan) {
  items_.clear();
  token_ids_.clear();
  positions_.clear();
  drawn_.clear();
  has_drawn_ = false;
  spans_.clear();
  block_table_.clear();
  logit_rows_.clear();
  adapters_.clear();
  sample_rows_.clear();
  steering_.Begin(plan.rows);
  probes_.Begin(plan.rows);
  const auto sites = static_cast<size_t>(limits_.layers * kCapturePointCount);
  capture_slot_.assign(static_cast<size_t>(plan.rows), 0);
  capture_base_.assign(static_cast<size_t>(plan.rows), 0);
  site_ordinal_.assign(sites, -1);
  staging_rows_ = 0;
}

void StepBatch::Build(const StepPlan& plan) {
  Clear(plan);
  // Rows under one adapter lie next to each other, so that its weights are read once a step.
  by_adapter_ = plan.items;
  std::ranges::stable_sort(by_adapter_, {}, AdapterOf);
  for (const ScheduledRows& scheduled : by_adapter_) AddItem(scheduled);
  steer_tables_ = steering_.Finish();
  probe_tables_ = probes_.Finish();
  results_.assign(sample_rows_.size(), SampleResult{});
  capture_tables_ = {.row_slot = capture_slot_,
                     .row_base = capture_base_,
                     .site_ordinal = site_ordinal_,
                     .sites = limits_.layers * kCapturePointCount,
                     .staging = area_->data(),
                     .staging_rows = limits_.max_capture_rows};
}

ForwardStep StepBatch::forward() const {
  return {.tables = {.token_ids = token_ids_,
                     .positions = positions_,
                     .sequences = spans_,
                     .block_table = block_table_,
                     .drawn = std::span(drawn_).first(has_drawn_ ? drawn_.size() : 0)},
          .logit_rows = logit_rows_,
          .steering = steer_tables_,
          .capture = staging_rows_ > 0 ? &capture_tables_ : nullptr,
          .adapters = adapters_,
          .probes = probe_tables_};
}

void StepBatch::AddItem(const ScheduledRows& scheduled) {
  const Sequence& sequence = *scheduled.sequence;
  BatchItem item;
  item.scheduled = scheduled;
  // A token that is still being drawn comes after all that are known.
  const bool unseen = scheduled.drawn_by >= 0;
  const int32_t begin = unseen ? sequence.context() : sequence.computed;
  item.positions = {begin, begin + scheduled.rows};
  item.first_row = static_cast<int32_t>(token_ids_.size());
  spans_.push_back({.first_row = item.first_row,
                    .row_count = scheduled.rows,
                    .first_position = item.positions.begin,
                    .block_table_offset = static_cast<int32_t>(block_table_.size())});
  block_table_.insert(block_table_.end(), sequence.blocks.begin(), sequence.blocks.end());
  for (int32_t p = item.positions.begin; p < item.positions.end; ++p) {
    token_ids_.push_back(unseen ? 0 : static_cast<int32_t>(sequence.token(p)));
    positions_.push_back(p);
    drawn_.push_back(scheduled.drawn_by);
  }
  has_drawn_ |= unseen;
  AddAdapter(item);
  steering_.AddRows(sequence, item.first_row, item.positions);
  if (!sequence.is_shadow) {
    probes_.AddRows(sequence, item.first_row, item.positions);
    AddCapture(item);
  }
  AddSampling(item);
  items_.push_back(item);
}

void StepBatch::AddAdapter(const BatchItem& item) {
  const int32_t adapter = AdapterOf(item.scheduled);
  if (adapter < 0) return;
  if (!adapters_.empty() && adapters_.back().adapter == adapter) {
    adapters_.back().row_count += item.scheduled.rows;
    return;
  }
  adapters_.push_back({adapter, item.first_row, item.scheduled.rows});
}

void StepBatch::AddCapture(BatchItem& item) {
  const RequestState& request = *item.scheduled.sequence->request;
  if (request.evaluating()) {
    Keep(item, request.prompt_gates->todo(), request.prompt_gates->device_sites());
  } else if (request.capture) {
    Keep(item, request.capture->todo, request.capture->device_sites);
  }
}

void StepBatch::Keep(BatchItem& item, PositionRange wanted, std::span<const int32_t> device_sites) {
  item.captured = Intersect(item.positions, wanted);
  if (item.captured.empty()) return;
  area_->Make();
  const size_t sites = static_cast<size_t>(limits_.layers * kCapturePointCount);
  const size_t slot = site_ordinal_.size() / sites;
  site_ordinal_.resize(site_ordinal_.size() + sites, -1);
  for (size_t ordinal = 0; ordinal < device_sites.size(); ++ordinal) {
    const auto site = static_cast<size_t>(device_sites[ordinal]);
    site_ordinal_[slot * sites + site] = static_cast<int32_t>(ordinal);
  }
  item.staging_row = staging_rows_;
  for (int32_t p = item.captured.begin; p < item.captured.end; ++p) {
    const auto row = static_cast<size_t>(item.first_row + (p - item.positions.begin));
    capture_slot_[row] = static_cast<int32_t>(slot);
    capture_base_[row] = staging_rows_;
    staging_rows_ += static_cast<int32_t>(device_sites.size());
  }
}

void StepBatch::AddSampling(BatchItem& item) {
  const Sequence& sequence = *item.scheduled.sequence;
  const RequestState& request = *sequence.request;
  const auto row_of = [&item](int32_t p) { return item.first_row + (p - item.positions.begin); };
  if (item.scheduled.is_reference) {
    reference_row_ = static_cast<int32_t>(logit_rows_.size());
    logit_rows_.push_back(row_of(item.positions.end - 1));
  }
  if (sequence.is_shadow) return;
  // Of the item before, if that was this sequence's shadow.
  const int32_t reference_row = std::exchange(reference_row_, -1);
  if (!request.evaluating()) item.scored = Intersect(item.positions, request.to_score);
  item.first_score = sample_rows_.size();
  for (int32_t p = item.scored.begin; p < item.scored.end; ++p) {
    sample_rows_.push_back(ScoreRow(request, p, static_cast<int32_t>(logit_rows_.size())));
    logit_rows_.push_back(row_of(p));
  }
  item.first_draw = sample_rows_.size();
  if (item.scheduled.draws == 0) return;
  const auto logits_row = static_cast<int32_t>(logit_rows_.size());
  logit_rows_.push_back(row_of(item.positions.end - 1));
  const auto draw = [&](int32_t completion) {
    SampleRow row = DrawRow(sequence, completion, item.positions.end, logits_row);
    row.reference_row = reference_row;
    sample_rows_.push_back(row);
  };
  if (sequence.completion != kPromptOnly) return draw(sequence.completion);
  int32_t draws = item.scheduled.draws;
  for (size_t c = 0; c < request.completions.size() && draws > 0; ++c) {
    if (request.completions[c].finish != FinishReason::kNone) continue;
    draw(static_cast<int32_t>(c));
    --draws;
  }
}

}  // namespace llama_steer
