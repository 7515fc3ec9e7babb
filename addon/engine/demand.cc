#include "engine/demand.h"

#include <algorithm>

#include "engine/shadow.h"

namespace llama_steer {
namespace {

/// The next row is to be captured, and its bytes are not covered.
bool LacksCaptureCredit(const Sequence& sequence) {
  const RequestState& request = *sequence.request;
  if (!request.capture || request.capture->params.mean || request.evaluating()) return false;
  const PositionRange& todo = request.capture->todo;
  const bool captures = todo.begin <= sequence.computed && sequence.computed < todo.end;
  return captures && request.capture_credit_bytes < request.capture->token_bytes;
}

/// Tokens whose captured rows are covered by the request's credit, and that the lens reads at once.
int64_t CoveredTokens(const RequestState& request) {
  const CaptureState& capture = *request.capture;
  if (capture.params.mean || capture.token_bytes == 0) return INT32_MAX;
  const int64_t covered = std::max<int64_t>(request.capture_credit_bytes, 0) / capture.token_bytes;
  if (capture.params.lens_top_k == 0) return covered;
  const auto token_rows = static_cast<int64_t>(capture.outputs.size());
  return std::min(covered, std::max<int64_t>(kLensRowsPerStep / token_rows, 1));
}

}  // namespace

bool HasCredits(const Sequence& sequence) {
  return sequence.request->credits > sequence.request->planned_draws &&
         !LacksCaptureCredit(sequence);
}

bool IsUnread(const Sequence& sequence) {
  return sequence.request->credits <= 0 || LacksCaptureCredit(sequence);
}

int32_t Slots(const Sequence& sequence) {
  const bool forks =
      sequence.completion == kPromptOnly && sequence.request->spec.max_new_tokens > 0;
  const int32_t rows = ComparesUnsteered(*sequence.request) ? 2 : 1;
  return rows * (forks ? sequence.request->live_completions() : 1);
}

Kept KeptOf(const Sequence& sequence) {
  const RequestState& request = *sequence.request;
  if (sequence.is_shadow) return {};
  if (request.evaluating()) {
    return {.positions = request.prompt_gates->todo(),
            .rows_per_token = request.prompt_gates->rows_per_token()};
  }
  if (!request.capture) return {};
  return {.positions = request.capture->todo,
          .rows_per_token = request.capture->rows_per_token(),
          .covered_tokens = CoveredTokens(request)};
}

PositionRange ToScore(const Sequence& sequence) {
  const bool withheld = sequence.is_shadow || sequence.request->evaluating();
  return withheld ? PositionRange{} : sequence.request->to_score;
}

int32_t ReusableEnd(const Sequence& sequence) {
  int32_t end = sequence.context() - 1;
  for (const PositionRange wanted : {KeptOf(sequence).positions, ToScore(sequence)}) {
    if (!wanted.empty()) end = std::min(end, wanted.begin);
  }
  if (sequence.is_shadow || sequence.request->evaluating()) return end;
  return std::min(end, FirstUnread(sequence));
}

}  // namespace llama_steer
