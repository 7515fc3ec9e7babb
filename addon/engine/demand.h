// What a sequence asks of a step: credits, slots, rows that are kept for the host. Pure.
#pragma once

#include <cstdint>

#include "engine/sequence.h"

namespace llama_steer {

bool HasCredits(const Sequence& sequence);

/// The client has not taken what it was sent.
bool IsUnread(const Sequence& sequence);

/// Batch slots that a sequence takes now or, for a prompt, when its completions begin.
int32_t Slots(const Sequence& sequence);

/// What a step keeps for the host: rows of the client's capture, or of the gates on the prompt.
struct Kept {
  PositionRange positions;
  int64_t rows_per_token = 1;
  int64_t covered_tokens = INT32_MAX;  // by the client's credit
};
Kept KeptOf(const Sequence& sequence);

/// Positions whose logits score the next prompt token, now.
PositionRange ToScore(const Sequence& sequence);

/// Positions that a sequence may take from the prefix cache: not the last known token, nothing
/// that has still to be captured, scored or probed.
int32_t ReusableEnd(const Sequence& sequence);

}  // namespace llama_steer
