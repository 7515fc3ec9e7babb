// Rows for the sampler: how to draw the next token of a completion, how to score a prompt token.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "engine/sequence.h"

namespace llama_steer {

/// Whether a penalty depends on the tokens before the one that is drawn.
bool HasPenalty(const SamplingParams& sampling);

/// Draws the token at `position`. Spans point into the sequence and its request.
SampleRow DrawRow(const Sequence& sequence, int32_t completion, int32_t position,
                  int32_t logits_row);

/// Scores the prompt token that follows `position`.
SampleRow ScoreRow(const RequestState& request, int32_t position, int32_t logits_row);

/// Counts what is in the prompt, when a penalty asks for it.
void BeginSeenTokens(Sequence& sequence);
/// Counts a generated token, when a penalty asks for it.
void AddSeenToken(Sequence& sequence, uint32_t token);

/// kStop, kLength or kNone for a completion whose `tokens`-th token is `token`.
FinishReason FinishOf(const EngineRequest& request, uint32_t token, uint32_t tokens);

}  // namespace llama_steer
