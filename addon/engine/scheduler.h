// Which rows the next step computes: continuous batching over paged KV blocks.
//
//   1. Every running sequence gets the blocks of its known tokens. When none is left the youngest
//      sequence is preempted, those without credits before all others; it is recomputed later.
//   2. One row for each decoding sequence, oldest first.
//   3. What is left of the budget goes to prefills, oldest first, in chunks.
//   4. Waiting sequences are admitted in order of age, in place of sequences without credits when
//      that makes room. The first that does not fit stops the rest, so nothing overtakes it for
//      ever.
//
// A sequence that is compared with its unsteered shadow is one unit with it: both hold blocks or
// none, and the rows that a token is drawn from are computed in the same step.
//
// A request without credits is not scheduled and holds up nobody.
// Steps behind one that runs are planned in scheduler_ahead.cc.
// Pure: reads and writes block tables, knows no device, clock or thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/prefix_cache.h"
#include "engine/sequence.h"

namespace llama_steer {

struct StepLimits {
  int32_t max_rows = 0;
  int32_t max_logit_rows = 0;
  int32_t max_running = 0;       // sequences with credits that hold blocks
  int64_t max_capture_rows = 0;  // staging rows
};

struct ScheduledRows {
  Sequence* sequence = nullptr;
  int32_t rows = 0;   // positions [computed, computed + rows)
  int32_t draws = 0;  // tokens drawn at its end: one a completion for a prompt, else 1; 0: none
  /// The last row of a shadow is what the draws of the next item are compared with.
  bool is_reference = false;
  /// Not negative: the one row is of the token that this result of the step that runs will be.
  int32_t drawn_by = -1;
};

/// What the step that runs draws: sequence -> index of the result.
using RunningDraws = std::unordered_map<const Sequence*, int32_t>;

struct StepPlan {
  std::vector<ScheduledRows> items;
  int32_t rows = 0;
  int32_t logit_rows = 0;
  int64_t capture_rows = 0;
  int32_t preemptions = 0;
  /// Waiting sequences that were given blocks in this step.
  std::vector<Sequence*> admitted;
};

class Scheduler {
 public:
  Scheduler(const StepLimits& limits, PrefixCache& cache, const BlockKeys& keys)
      : limits_(limits), cache_(cache), keys_(keys) {}

  /// `sequences`: all that have not finished, oldest first. The plan has at least one item
  /// whenever a sequence has credits.
  StepPlan Plan(std::span<Sequence* const> sequences);

  /// The step behind one that still runs and was planned last: every sequence of it goes on with
  /// the token that it draws, whatever that is. Nothing when a token could change what the step is,
  /// or when there is something to decide: a prompt, an admission, too few blocks. Then nothing has
  /// been changed either.
  std::optional<StepPlan> PlanAhead(std::span<Sequence* const> sequences,
                                    const RunningDraws& draws);

  /// Gives all blocks back; the sequence waits to be computed again.
  void Preempt(Sequence& sequence);

 private:
  void SecureBlocks(std::span<Sequence* const> sequences, StepPlan& plan);
  bool Grow(Sequence& sequence);
  bool GrowOwn(Sequence& sequence, int32_t tokens);
  bool GrowShadow(Sequence& sequence);
  void Admit(std::span<Sequence* const> sequences, StepPlan& plan);
  bool MayAdmit(std::span<Sequence* const> sequences, int32_t running);
  bool PreemptUnread(std::span<Sequence* const> sequences, int32_t wanted);
  bool TryAdmit(Sequence& sequence, int32_t running);
  bool HasRoomFor(const Sequence& sequence, int32_t running) const;
  int32_t ReusePrefix(Sequence& sequence);
  bool IsDecode(const Sequence& sequence) const;
  void Schedule(Sequence& sequence, StepPlan& plan);
  int32_t RowsOf(const Sequence& sequence, const StepPlan& plan) const;
  bool ScheduleShadow(Sequence& sequence, int32_t& rows, StepPlan& plan);
  void Add(Sequence& sequence, int32_t rows, StepPlan& plan);
  /// Blocks of all known tokens, the shadow's included.
  int32_t BlocksOf(const Sequence& sequence) const;
  int32_t BlocksFor(int32_t tokens) const {
    return (tokens + cache_.block_tokens() - 1) / cache_.block_tokens();
  }

  StepLimits limits_;
  PrefixCache& cache_;
  const BlockKeys& keys_;
};

}  // namespace llama_steer
