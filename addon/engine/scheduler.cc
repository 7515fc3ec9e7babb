#include "engine/scheduler.h"

#include <algorithm>
#include <optional>

#include "engine/demand.h"
#include "engine/shadow.h"

namespace llama_steer {
namespace {

/// The next to lose its blocks: the youngest without credits, or else the youngest.
Sequence* Victim(std::span<Sequence* const> sequences) {
  Sequence* youngest = nullptr;
  for (auto next = sequences.rbegin(); next != sequences.rend(); ++next) {
    Sequence* sequence = *next;
    if (!sequence->resident) continue;
    if (IsUnread(*sequence)) return sequence;
    if (youngest == nullptr) youngest = sequence;
  }
  return youngest;
}

/// The most rows from `first` on of which at most `capacity` lie in `range`.
int64_t RowsWithin(int32_t first, int32_t rows, PositionRange range, int64_t capacity) {
  const int32_t inside = Intersect({first, first + rows}, range).size();
  if (inside <= capacity) return rows;
  return std::max(range.begin - first, 0) + capacity;
}

/// Keeps of each request as many sequences as it has credits: those that generated least, so that
/// few credits are shared fairly among its completions. They lie next to each other.
std::vector<Sequence*> WithinCredits(std::span<Sequence*> sequences) {
  std::vector<Sequence*> kept;
  auto begin = sequences.begin();
  while (begin != sequences.end()) {
    const RequestState* request = (*begin)->request;
    const auto end = std::find_if(begin, sequences.end(),
                                  [request](const Sequence* s) { return s->request != request; });
    auto kept_end = end;
    if (request->credits < end - begin) {
      std::stable_sort(begin, end, [](const Sequence* a, const Sequence* b) {
        return a->generated.size() < b->generated.size();
      });
      kept_end = begin + request->credits;
    }
    kept.insert(kept.end(), begin, kept_end);
    begin = end;
  }
  return kept;
}

}  // namespace

StepPlan Scheduler::Plan(std::span<Sequence* const> sequences) {
  StepPlan plan;
  for (Sequence* sequence : sequences) sequence->request->planned_draws = 0;
  SecureBlocks(sequences, plan);

  std::vector<Sequence*> running;
  for (Sequence* sequence : sequences) {
    if (sequence->resident && HasCredits(*sequence)) running.push_back(sequence);
  }
  running = WithinCredits(running);
  for (Sequence* sequence : running) {
    if (IsDecode(*sequence)) Schedule(*sequence, plan);
  }
  for (Sequence* sequence : running) {
    if (!IsDecode(*sequence)) Schedule(*sequence, plan);
  }
  // What was just preempted would only take its blocks back from those that needed them.
  if (plan.preemptions == 0) Admit(sequences, plan);
  return plan;
}

void Scheduler::SecureBlocks(std::span<Sequence* const> sequences, StepPlan& plan) {
  for (Sequence* sequence : sequences) {
    while (sequence->resident && HasCredits(*sequence) && !Grow(*sequence)) {
      Sequence* victim = Victim(sequences);
      Preempt(victim != nullptr ? *victim : *sequence);
      ++plan.preemptions;
    }
  }
}

bool Scheduler::IsDecode(const Sequence& sequence) const {
  if (sequence.remaining() != 1) return false;
  return !NeedsShadow(sequence) ||
         (sequence.shadow && sequence.shadow->resident && sequence.shadow->remaining() == 1);
}

bool Scheduler::Grow(Sequence& sequence) {
  return GrowOwn(sequence, sequence.context()) && GrowShadow(sequence);
}

/// The shadow gets its blocks when its sequence has computed what they share.
bool Scheduler::GrowShadow(Sequence& sequence) {
  if (!NeedsShadow(sequence)) return true;
  Sequence& shadow = ShadowOf(sequence);
  if (!shadow.resident) {
    if (sequence.computed < SharedEnd(sequence, cache_.block_tokens())) return true;
    shadow.computed = ReusePrefix(shadow);
    shadow.resident = true;
  }
  return GrowOwn(shadow, shadow.context());
}

bool Scheduler::GrowOwn(Sequence& sequence, int32_t tokens) {
  const auto wanted = static_cast<size_t>(BlocksFor(tokens));
  while (sequence.blocks.size() < wanted) {
    const int32_t block = cache_.Allocate();
    if (block == kNoBlock) return false;
    sequence.blocks.push_back(block);
  }
  return true;
}

int32_t Scheduler::BlocksOf(const Sequence& sequence) const {
  return BlocksFor(sequence.context()) * (NeedsShadow(sequence) ? 2 : 1);
}

void Scheduler::Preempt(Sequence& sequence) {
  if (sequence.shadow) Preempt(*sequence.shadow);
  cache_.ReleaseAll(sequence.blocks);
  sequence.resident = false;
  sequence.computed = 0;
}

void Scheduler::Admit(std::span<Sequence* const> sequences, StepPlan& plan) {
  int32_t running = 0;
  for (const Sequence* sequence : sequences) {
    if (sequence->resident && !IsUnread(*sequence)) running += Slots(*sequence);
  }
  for (Sequence* sequence : sequences) {
    if (sequence->resident || !HasCredits(*sequence)) continue;
    const int32_t slots = Slots(*sequence);
    if (plan.rows >= limits_.max_rows) return;
    // Alone, a request with more completions than slots takes turns.
    if (running > 0 && running + slots > limits_.max_running) return;
    while (!TryAdmit(*sequence, running)) {
      if (!PreemptUnread(sequences, BlocksOf(*sequence) + running)) return;
      ++plan.preemptions;
    }
    running += slots;
    plan.admitted.push_back(sequence);
    Schedule(*sequence, plan);
  }
}

/// Takes the blocks of the youngest sequence without credits, if all of them together can make
/// `wanted` blocks available: streams that nobody reads must not keep others out.
bool Scheduler::PreemptUnread(std::span<Sequence* const> sequences, int32_t wanted) {
  Sequence* youngest = nullptr;
  size_t obtainable = static_cast<size_t>(cache_.blocks().available());
  for (Sequence* sequence : sequences) {
    if (!sequence->resident || !IsUnread(*sequence)) continue;
    youngest = sequence;
    obtainable += sequence->blocks.size();
    if (sequence->shadow) obtainable += sequence->shadow->blocks.size();
  }
  if (youngest == nullptr || obtainable < static_cast<size_t>(wanted)) return false;
  Preempt(*youngest);
  return true;
}

bool Scheduler::TryAdmit(Sequence& sequence, int32_t running) {
  const int32_t reused = ReusePrefix(sequence);
  if (!HasRoomFor(sequence, running)) {
    cache_.ReleaseAll(sequence.blocks);
    return false;
  }
  sequence.computed = reused;
  sequence.resident = true;
  return Grow(sequence);
}

/// Whether the blocks that it lacks can be had, beside `running` slots.
bool Scheduler::HasRoomFor(const Sequence& sequence, int32_t running) const {
  const int32_t missing = BlocksOf(sequence) - static_cast<int32_t>(sequence.blocks.size());
  // One block each for those that run, or their very next tokens would preempt this one.
  const int32_t spare = cache_.blocks().available() - missing;
  return spare >= 0 && (running == 0 || spare >= running);
}

/// Takes the longest chain of cached blocks whose steering is proven; returns its positions.
int32_t Scheduler::ReusePrefix(Sequence& sequence) {
  if (!cache_.enabled()) return 0;
  const int32_t end_block = ReusableEnd(sequence) / cache_.block_tokens();
  const ActingSteerings steerings = sequence.steerings();
  for (int32_t index = 0; index < end_block; ++index) {
    const Digest& key = keys_.Key(sequence, index);
    const int32_t block = cache_.Find(key, keys_.Tokens(sequence, index));
    if (block == kNoBlock) break;
    const std::optional<Digest> proof_key = ProofKey(steerings, keys_.Positions(index));
    if (proof_key && cache_.FindProof(block, *proof_key) == nullptr) break;
    cache_.Retain(block);
    sequence.blocks.push_back(block);
  }
  return static_cast<int32_t>(sequence.blocks.size()) * cache_.block_tokens();
}

void Scheduler::Schedule(Sequence& sequence, StepPlan& plan) {
  if (!HasCredits(sequence)) return;
  int32_t rows = RowsOf(sequence, plan);
  if (NeedsShadow(sequence) && !ScheduleShadow(sequence, rows, plan)) {
    // Its last row waits for the shadow's.
    rows = std::min({rows, sequence.remaining() - 1, limits_.max_rows - plan.rows});
  }
  if (rows > 0) Add(sequence, rows, plan);
}

/// The most rows that the limits of the step leave to a sequence.
int32_t Scheduler::RowsOf(const Sequence& sequence, const StepPlan& plan) const {
  const int32_t logit_room = limits_.max_logit_rows - plan.logit_rows;
  int64_t rows = std::min(sequence.remaining(), limits_.max_rows - plan.rows);
  const Kept kept = KeptOf(sequence);
  const int64_t room = (limits_.max_capture_rows - plan.capture_rows) / kept.rows_per_token;
  rows = RowsWithin(sequence.computed, static_cast<int32_t>(rows), kept.positions,
                    std::min(room, kept.covered_tokens));
  // What comes after a decision may have to be computed in another way.
  if (sequence.request->evaluating()) {
    rows = std::min<int64_t>(rows, kept.positions.end - sequence.computed);
  }
  const PositionRange to_score = ToScore(sequence);
  rows = RowsWithin(sequence.computed, static_cast<int32_t>(rows), to_score, logit_room);
  const int32_t scored =
      Intersect({sequence.computed, sequence.computed + static_cast<int32_t>(rows)}, to_score)
          .size();
  // The row that tokens are drawn from, and the shadow's beside it.
  const int32_t drawn = NeedsShadow(sequence) ? 2 : 1;
  const bool generates = sequence.request->spec.max_new_tokens > 0;
  if (generates && rows == sequence.remaining() && scored + drawn > logit_room) --rows;
  return static_cast<int32_t>(rows);
}

/// Plans rows of the shadow. True when the last rows of both fit into this step; the shadow's
/// comes first. `rows`, of the sequence itself, is left as it is.
bool Scheduler::ScheduleShadow(Sequence& sequence, int32_t& rows, StepPlan& plan) {
  Sequence& shadow = ShadowOf(sequence);
  if (!shadow.resident) return false;
  const int32_t room = limits_.max_rows - plan.rows;
  ScheduledRows item{.sequence = &shadow, .rows = shadow.remaining()};
  item.is_reference = rows == sequence.remaining() && rows + item.rows <= room;
  if (!item.is_reference) {
    // The sequence goes first; what it leaves is the shadow's.
    rows = std::min(rows, sequence.remaining() - 1);
    item.rows = std::min(shadow.remaining() - 1, room - rows);
  }
  if (item.rows <= 0) return false;
  plan.rows += item.rows;
  plan.logit_rows += item.is_reference ? 1 : 0;
  plan.items.push_back(item);
  return item.is_reference;
}

void Scheduler::Add(Sequence& sequence, int32_t rows, StepPlan& plan) {
  RequestState& request = *sequence.request;
  ScheduledRows item{.sequence = &sequence, .rows = rows};
  if (request.spec.max_new_tokens > 0 && rows == sequence.remaining()) {
    const int64_t credits = request.credits - request.planned_draws;
    const int32_t wanted = sequence.completion == kPromptOnly ? request.live_completions() : 1;
    item.draws = static_cast<int32_t>(std::min<int64_t>(wanted, credits));
    request.planned_draws += item.draws;
  }
  const PositionRange positions{sequence.computed, sequence.computed + rows};
  const Kept kept = KeptOf(sequence);
  plan.rows += rows;
  plan.logit_rows += Intersect(positions, ToScore(sequence)).size() + (item.draws > 0 ? 1 : 0);
  plan.capture_rows += Intersect(positions, kept.positions).size() * kept.rows_per_token;
  plan.items.push_back(item);
}

}  // namespace llama_steer
