// Planning the step behind one that still runs.
#include <algorithm>

#include "engine/demand.h"
#include "engine/sampling.h"
#include "engine/scheduler.h"
#include "engine/shadow.h"

namespace llama_steer {
namespace {

/// Whether neither the next step of a completion nor what is drawn in it asks which token comes
/// before: nothing looks back at tokens, looks for text, or keeps rows for the host.
bool GoesOnUnseen(const Sequence& sequence) {
  const RequestState& request = *sequence.request;
  if (sequence.completion == kPromptOnly || HasPenalty(request.spec.sampling)) return false;
  if (!std::ranges::all_of(sequence.texts, &TextProgress::found)) return false;
  if (ComparesUnsteered(request) || FirstUnread(sequence) != kOpenEnd) return false;
  return !request.capture || request.capture->todo.empty();
}

/// The token that is being drawn is the last one, whatever it is.
bool EndsByLength(const Sequence& sequence) {
  const RequestState& request = *sequence.request;
  const auto completion = static_cast<size_t>(sequence.completion);
  return request.completions[completion].tokens + 1 >= request.spec.max_new_tokens;
}

}  // namespace

std::optional<StepPlan> Scheduler::PlanAhead(std::span<Sequence* const> sequences,
                                             const RunningDraws& draws) {
  StepPlan plan;
  int32_t blocks = 0;
  int32_t slots = 0;
  const RequestState* request = nullptr;
  int64_t credits = 0;  // of that request, once the running step has drawn
  for (Sequence* sequence : sequences) {
    if (!sequence->resident) continue;
    if (sequence->request != request) {
      request = sequence->request;
      credits = request->credits - request->planned_draws;
    }
    const auto draw = draws.find(sequence);
    const bool unseen = draw != draws.end();
    if (unseen && EndsByLength(*sequence)) continue;
    if (!HasCredits(*sequence)) continue;
    // Which completions come first when credits are few is for Plan() to say.
    if (--credits < 0 || !GoesOnUnseen(*sequence)) return std::nullopt;
    if (!unseen && sequence->remaining() != 1) return std::nullopt;
    const int32_t tokens = sequence->context() + (unseen ? 1 : 0);
    blocks += std::max(BlocksFor(tokens) - static_cast<int32_t>(sequence->blocks.size()), 0);
    slots += Slots(*sequence);
    plan.items.push_back(
        {.sequence = sequence, .rows = 1, .draws = 1, .drawn_by = unseen ? draw->second : -1});
  }
  plan.rows = plan.logit_rows = static_cast<int32_t>(plan.items.size());
  if (plan.rows == 0 || plan.rows > std::min(limits_.max_rows, limits_.max_logit_rows) ||
      blocks > cache_.blocks().available() || MayAdmit(sequences, slots)) {
    return std::nullopt;
  }
  for (Sequence* sequence : sequences) sequence->request->planned_draws = 0;
  for (const ScheduledRows& item : plan.items) {
    ++item.sequence->request->planned_draws;
    GrowOwn(*item.sequence, item.sequence->context() + (item.drawn_by >= 0 ? 1 : 0));
  }
  return plan;
}

/// Whether Plan() might admit a sequence beside those that take `running` slots.
bool Scheduler::MayAdmit(std::span<Sequence* const> sequences, int32_t running) {
  const auto is_waiting = [](const Sequence* s) { return !s->resident && HasCredits(*s); };
  const auto first = std::ranges::find_if(sequences, is_waiting);
  if (first == sequences.end()) return false;
  if (running + Slots(**first) > limits_.max_running) return false;
  const auto is_unread = [](const Sequence* s) { return s->resident && IsUnread(*s); };
  if (std::ranges::any_of(sequences, is_unread)) return true;  // they may make room
  ReusePrefix(**first);
  const bool fits = HasRoomFor(**first, running);
  cache_.ReleaseAll((*first)->blocks);
  return fits;
}

}  // namespace llama_steer
