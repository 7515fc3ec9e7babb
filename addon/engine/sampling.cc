#include "engine/sampling.h"

#include <algorithm>

namespace llama_steer {

bool HasPenalty(const SamplingParams& sampling) {
  return sampling.repetition_penalty != 1.0f || sampling.presence_penalty != 0.0f ||
         sampling.frequency_penalty != 0.0f;
}

SampleRow DrawRow(const Sequence& sequence, int32_t completion, int32_t position,
                  int32_t logits_row) {
  const SamplingParams& sampling = sequence.request->spec.sampling;
  return {.logits_row = logits_row,
          .temperature = sampling.temperature,
          .top_p = sampling.top_p,
          .min_p = sampling.min_p,
          .top_k = sampling.top_k,
          .repetition_penalty = sampling.repetition_penalty,
          .presence_penalty = sampling.presence_penalty,
          .frequency_penalty = sampling.frequency_penalty,
          .seen = sequence.seen.list(),
          .bias = sampling.logit_bias,
          .seed = sampling.seed,
          .completion = static_cast<uint32_t>(completion),
          .position = static_cast<uint32_t>(position),
          .logprob = sampling.logprobs,
          .top_logprobs = sampling.top_logprobs};
}

SampleRow ScoreRow(const RequestState& request, int32_t position, int32_t logits_row) {
  SampleRow row;
  row.logits_row = logits_row;
  row.forced_token = request.spec.prompt_token_ids[static_cast<size_t>(position) + 1];
  row.position = static_cast<uint32_t>(position) + 1;
  row.logprob = true;
  row.top_logprobs = request.spec.sampling.top_logprobs;
  return row;
}

void BeginSeenTokens(Sequence& sequence) {
  // Presence and frequency count generated tokens only.
  if (sequence.request->spec.sampling.repetition_penalty == 1.0f) return;
  for (const uint32_t token : sequence.request->spec.prompt_token_ids) {
    sequence.seen.AddPrompt(token);
  }
}

void AddSeenToken(Sequence& sequence, uint32_t token) {
  if (HasPenalty(sequence.request->spec.sampling)) sequence.seen.AddGenerated(token);
}

FinishReason FinishOf(const EngineRequest& request, uint32_t token, uint32_t tokens) {
  if (std::ranges::find(request.sampling.stop_token_ids, token) !=
      request.sampling.stop_token_ids.end()) {
    return FinishReason::kStop;
  }
  return tokens >= request.max_new_tokens ? FinishReason::kLength : FinishReason::kNone;
}

}  // namespace llama_steer
