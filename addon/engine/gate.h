// Gates on the prompt. They are decided once a request, from rows of the residual stream that an
// evaluation prefill captures: a prefill in which every steering acts but those behind such a
// gate. A decided steering is one without a gate (fired) or none at all (not fired); so keys of KV
// blocks, proofs and positions know nothing of gates on the prompt.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/steering_effects.h"
#include "support/status.h"

namespace llama_steer {

bool IsOnPrompt(const GateParams& gate);

/// Strictly above or below the threshold.
bool IsOpen(const GateParams& gate, double score);

/// The undecided gates of a request.
class PromptGates {
 public:
  /// Nothing when no entry has a gate on the prompt.
  static std::optional<PromptGates> Of(std::span<const SteeringEntry> entries,
                                       int32_t prompt_tokens);

  /// Positions whose rows are still to be taken; those before have been. Empty: decide.
  PositionRange todo() const { return todo_; }
  /// Capture sites by ordinal.
  std::span<const int32_t> device_sites() const { return device_sites_; }
  int32_t rows_per_token() const { return static_cast<int32_t>(device_sites_.size()); }

  /// Rows of the positions [todo().begin, + tokens), `[tokens, rows_per_token, hidden_size]`.
  void TakeRows(int32_t tokens, const float* staging, int64_t hidden_size);

  /// Sets `decision` of the entries. kInternal for a score that is not finite.
  Status Decide(std::span<SteeringEntry> entries) const;

 private:
  struct Gate {
    size_t steering = 0;
    size_t ordinal = 0;
    PositionRange read;        // positions of the mean; one for the last prompt token
    std::vector<double> sums;  // [hidden_size], in token order
  };
  void Add(Gate& gate, const float* row, int64_t hidden_size) const;

  PositionRange todo_;
  std::vector<int32_t> device_sites_;
  std::vector<Gate> gates_;
};

}  // namespace llama_steer
