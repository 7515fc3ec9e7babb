// A bf16 checkpoint of random weights in an unlinked temporary file: it is mapped like a real one
// and gone when the process ends.
#pragma once

#include "model/llama_config.h"
#include "support/status.h"

namespace llama_steer::bench {

/// Weights about N(0, 0.02²), norms about 1. The file lies in $TMPDIR, else /var/tmp. `shared`: all
/// tensors of a kind are the same bytes of a file no larger than the largest of them; for devices
/// that copy every weight anyway.
StatusOr<CheckpointFiles> MakeRandomCheckpoint(const LlamaConfig& config, bool shared = false);

}  // namespace llama_steer::bench
