// Adds up the proof of steering of a sequence. Each token counts once, in token order, whether it
// was computed, computed again after a preemption, or taken from the prefix cache; so the proof of
// a request does not depend on how it was run.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/event.h"
#include "engine/prefix_cache.h"
#include "engine/sequence.h"

namespace llama_steer {

/// Counts the row of `position`, which was just computed, and keeps its proof for the block.
/// `proof`: one a steering of the request, or empty. kInternal when a steering did not act in all
/// its layers on a token that it was meant for, or its gate gave no score that is finite.
Status RecordComputed(Sequence& sequence, int32_t position, std::span<const SteerProof> proof,
                      int32_t block_tokens);

/// Counts the tokens of a block taken from the prefix cache. `proof`: kept with the block.
Status RecordReused(Sequence& sequence, PositionRange block, const BlockProof& proof);

/// The proof of the block that was just filled; null when no steering acts on it.
std::unique_ptr<BlockProof> ProofOfOpenBlock(const Sequence& sequence, PositionRange block);

/// Prompt first, then the completions in order; one a steering.
std::vector<AppliedSteeringReport> ReportApplied(const RequestState& request);

}  // namespace llama_steer
