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
// Pure: reads and writes block tables, knows no device, clock or thread.
#pragma once

#include <cstdint>
#include <span>
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
};

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

  /// Gives all blocks back; the sequence waits to be computed again.
  void Preempt(Sequence& sequence);

 private:
  void SecureBlocks(std::span<Sequence* const> sequences, StepPlan& plan);
  bool Grow(Sequence& sequence);
  bool GrowOwn(Sequence& sequence);
  bool GrowShadow(Sequence& sequence);
  void Admit(std::span<Sequence* const> sequences, StepPlan& plan);
  bool PreemptUnread(std::span<Sequence* const> sequences, int32_t wanted);
  bool TryAdmit(Sequence& sequence, int32_t running);
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
