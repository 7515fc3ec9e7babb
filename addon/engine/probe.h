// Probes: which rows of a step are scored, and the events made of the scores.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "engine/event.h"
#include "engine/request.h"
#include "engine/steering_effects.h"
#include "engine/text_matcher.h"
#include "engine/vector_table.h"
#include "support/status.h"

namespace llama_steer {

/// A probe of a running request: its parameters and the vector it has pinned.
struct ProbeEntry {
  ProbeParams params;
  std::shared_ptr<const ResidentVector> vector;
  int32_t text = kNoText;  // index in the texts that the request looks for

  /// Positions that it reads in a sequence; empty while its text has not appeared.
  PositionRange reads(int32_t prompt_tokens, std::span<const TextProgress> texts) const;
};

struct RequestState;
struct Sequence;

/// The first position at or after `sequence.probed` that is read; kOpenEnd when there is none.
int32_t FirstUnread(const Sequence& sequence);

/// The probe tables of one step.
class ProbePlan {
 public:
  explicit ProbePlan(int32_t layers) : layers_(layers) {}

  void Begin(int32_t rows);
  /// Rows [first_row, first_row + positions.size()) of the step belong to `sequence`.
  void AddRows(const Sequence& sequence, int32_t first_row, PositionRange positions);
  /// Null when no row of the step is probed. Valid until Begin().
  const ProbeTables* Finish();

  /// Score of a probe on a row that it reads.
  float ScoreOf(int32_t row, size_t probe) const {
    return scores_[static_cast<size_t>(row) * stride_ + probe];
  }

 private:
  int32_t layers_;
  std::vector<const Sequence*> sequences_;  // by slot; slot 0 is nobody's
  std::vector<int32_t> row_slot_;           // [rows]
  std::vector<SteerOpRange> ranges_;        // [layers, slots]
  std::vector<ProbeOp> ops_;
  std::vector<float> scores_;  // [rows, stride], NaN where nothing was read
  size_t stride_ = 0;
  ProbeTables tables_;
};

/// The scores of positions [sequence.probed, positions.end) that were computed in this step, whose
/// row `first_row` is of positions.begin. kInternal for a score that is not finite. They count as
/// read afterwards.
StatusOr<std::vector<ProbeScoresEvent>> TakeScores(Sequence& sequence, const ProbePlan& plan,
                                                   int32_t first_row, PositionRange positions);

}  // namespace llama_steer
