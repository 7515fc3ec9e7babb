// Shadows: the unsteered twin of a sequence, for compare_unsteered. A shadow has the tokens of its
// sequence, blocks and keys of its own, and no steering. It exists from the first token that a
// steering changes; before that both would compute the same bits, and KL is exactly 0. Its blocks
// before that token are shared through the prefix cache.
//
// Both compute the row that a token is drawn from in the same step, so that the sampler has both
// rows of logits.
#pragma once

#include <cstdint>

#include "engine/sequence.h"

namespace llama_steer {

/// Whether the request can need shadows at all.
bool ComparesUnsteered(const RequestState& request);

/// Whether a known token of the sequence is changed by a steering, so that its next token is
/// compared with a shadow's.
bool NeedsShadow(const Sequence& sequence);

/// End of the full blocks before the first changed token, a position: the shadow begins when its
/// sequence has come so far.
int32_t SharedEnd(const Sequence& sequence, int32_t block_tokens);

/// The shadow of the sequence; made when it is asked for first.
Sequence& ShadowOf(Sequence& sequence);

}  // namespace llama_steer
