#include "engine/probe.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "engine/sequence.h"

namespace llama_steer {
namespace {

PositionRange ReadBy(const ProbeEntry& entry, const Sequence& sequence) {
  return entry.reads(sequence.request->prompt_tokens(), sequence.texts);
}

Status AddScores(const Sequence& sequence, const ProbePlan& plan, size_t probe, PositionRange read,
                 int32_t row, ProbeScoresEvent event, std::vector<ProbeScoresEvent>& events) {
  if (read.empty()) return Status::Ok();
  event.id = sequence.request->spec.id;
  event.probe = static_cast<uint32_t>(probe);
  for (int32_t p = read.begin; p < read.end; ++p, ++row) {
    const float score = plan.ScoreOf(row, probe);
    if (!std::isfinite(score)) {
      return Status::Internal("probes[" + std::to_string(probe) + "]: the score at position " +
                              std::to_string(p) + " is not finite");
    }
    event.positions.push_back(p);
    event.scores.push_back(score);
  }
  events.push_back(std::move(event));
  return Status::Ok();
}

}  // namespace

PositionRange ProbeEntry::reads(int32_t prompt_tokens, std::span<const TextProgress> texts) const {
  switch (params.read) {
    case ProbeRead::kEachToken:
      return {prompt_tokens - 1, kOpenEnd};
    case ProbeRead::kPromptLast:
      return {prompt_tokens - 1, prompt_tokens};
    case ProbeRead::kAfterText: {
      const TextProgress& progress = texts[static_cast<size_t>(text)];
      if (!progress.found()) return {};
      return {progress.completed_at, progress.completed_at + 1};
    }
  }
  return {};
}

int32_t FirstUnread(const Sequence& sequence) {
  int32_t first = kOpenEnd;
  for (const ProbeEntry& entry : sequence.request->probes) {
    const PositionRange unread = Intersect(ReadBy(entry, sequence), {sequence.probed, kOpenEnd});
    if (!unread.empty()) first = std::min(first, unread.begin);
  }
  return first;
}

void ProbePlan::Begin(int32_t rows) {
  sequences_.assign(1, nullptr);
  row_slot_.assign(static_cast<size_t>(rows), 0);
  stride_ = 0;
}

void ProbePlan::AddRows(const Sequence& sequence, int32_t first_row, PositionRange positions) {
  const std::vector<ProbeEntry>& probes = sequence.request->probes;
  const PositionRange unread = Intersect(positions, {sequence.probed, kOpenEnd});
  const auto slot = static_cast<int32_t>(sequences_.size());
  for (const ProbeEntry& entry : probes) {
    const PositionRange read = Intersect(ReadBy(entry, sequence), unread);
    if (read.empty()) continue;
    if (static_cast<size_t>(slot) == sequences_.size()) sequences_.push_back(&sequence);
    stride_ = std::max(stride_, probes.size());
    const auto begin = row_slot_.begin() + first_row + (read.begin - positions.begin);
    std::fill(begin, begin + read.size(), slot);
  }
}

const ProbeTables* ProbePlan::Finish() {
  if (sequences_.size() == 1) return nullptr;
  ranges_.clear();
  ops_.clear();
  for (int32_t layer = 0; layer < layers_; ++layer) {
    for (const Sequence* sequence : sequences_) {
      const auto begin = static_cast<int32_t>(ops_.size());
      for (size_t i = 0; sequence != nullptr && i < sequence->request->probes.size(); ++i) {
        const ProbeEntry& entry = sequence->request->probes[i];
        if (entry.params.layer != layer) continue;
        const PositionRange read = ReadBy(entry, *sequence);
        ops_.push_back({.probe_index = static_cast<int32_t>(i),
                        .vector_row = entry.vector->DeviceRow(layer),
                        .position_begin = read.begin,
                        .position_end = read.end});
      }
      ranges_.push_back({.begin = begin, .end = static_cast<int32_t>(ops_.size())});
    }
  }
  scores_.assign(row_slot_.size() * stride_, std::numeric_limits<float>::quiet_NaN());
  tables_ = {.row_slot = row_slot_,
             .ranges = ranges_,
             .slots = static_cast<int32_t>(sequences_.size()),
             .ops = ops_,
             .scores = scores_.data(),
             .score_stride = static_cast<int32_t>(stride_)};
  return &tables_;
}

StatusOr<std::vector<ProbeScoresEvent>> TakeScores(Sequence& sequence, const ProbePlan& plan,
                                                   int32_t first_row, PositionRange positions) {
  std::vector<ProbeScoresEvent> events;
  const PositionRange unread = Intersect(positions, {sequence.probed, kOpenEnd});
  const PositionRange prompt = {0, sequence.request->prompt_tokens()};
  for (size_t i = 0; i < sequence.request->probes.size(); ++i) {
    const PositionRange read = Intersect(ReadBy(sequence.request->probes[i], sequence), unread);
    const auto add = [&](PositionRange part, int32_t completion) {
      ProbeScoresEvent event;
      event.completion = completion;
      return AddScores(sequence, plan, i, part, first_row + (part.begin - positions.begin),
                       std::move(event), events);
    };
    LLAMA_STEER_RETURN_IF_ERROR(add(Intersect(read, prompt), -1));
    LLAMA_STEER_RETURN_IF_ERROR(add(Intersect(read, {prompt.end, kOpenEnd}), sequence.completion));
  }
  sequence.probed = std::max(sequence.probed, positions.end);
  return events;
}

}  // namespace llama_steer
