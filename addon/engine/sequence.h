// A request and its sequences, as the engine thread holds them. A request starts with one
// sequence, its prompt; when the prompt is computed it becomes one sequence a completion.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine/adapter_table.h"
#include "engine/capture.h"
#include "engine/event.h"
#include "engine/gate.h"
#include "engine/prefix_cache.h"
#include "engine/probe.h"
#include "engine/request.h"
#include "engine/steering_effects.h"
#include "engine/text_matcher.h"

namespace llama_steer {

/// Proof of one steering so far. Ratios are added in token order.
struct AppliedSum {
  uint32_t tokens = 0;               // that were changed
  uint32_t continuation_tokens = 0;  // of those, see EngineRequest::proof_prompt_tokens
  uint64_t rows = 0;                 // (token, layer) pairs
  double ratio = 0.0;
  uint64_t gate_evaluations = 0;
  uint64_t gate_fired = 0;
};

/// Tokens seen by a sequence, for the penalties; empty when there is none.
class SeenTokens {
 public:
  void AddPrompt(uint32_t token) { Count(token); }
  void AddGenerated(uint32_t token) { ++list_[Count(token)].generated_count; }
  const std::vector<SeenToken>& list() const { return list_; }

 private:
  size_t Count(uint32_t token);

  std::vector<SeenToken> list_;  // in order of first appearance
  std::unordered_map<uint32_t, size_t> index_;
};

struct RequestState;

inline constexpr int32_t kPromptOnly = -1;

struct Sequence {
  RequestState* request = nullptr;
  int32_t completion = kPromptOnly;
  std::vector<uint32_t> generated;
  bool finished = false;
  bool is_shadow = false;
  std::unique_ptr<Sequence> shadow;  // see shadow.h

  /// One for each text that the request looks for.
  std::vector<TextProgress> texts;
  /// One a steering: the positions it acts on. What is not known yet begins after context().
  std::vector<PositionRange> acts;

  bool resident = false;        // scheduled before and not preempted since: holds blocks
  std::vector<int32_t> blocks;  // of positions [0, computed) and of what is scheduled next
  int32_t computed = 0;         // positions whose keys and values are in the blocks
  int32_t proven = 0;           // positions below are counted in the proof already
  int32_t probed = 0;           // positions below have had their probe scores sent

  std::vector<Digest> own_keys;        // of the full blocks after the prompt's
  std::vector<SteerProof> open_proof;  // [steerings, block_tokens] of the block being filled
  SeenTokens seen;

  int32_t context() const;  // tokens known, prompt and generated
  uint32_t token(int32_t position) const;
  int32_t remaining() const { return context() - computed; }
  ActingSteerings steerings() const;
};

struct CompletionState {
  FinishReason finish = FinishReason::kNone;
  uint32_t tokens = 0;
  std::vector<AppliedSum> applied;       // one a steering, generated tokens only
  std::vector<int32_t> first_positions;  // one a steering: see AppliedSteeringReport
};

struct RequestState {
  EngineRequest spec;
  uint64_t arrival = 0;  // order of submission
  bool done = false;     // has had its DoneEvent
  Status failure;        // of the proof of a reused block; ends the request in this step
  int64_t credits = 0;
  int64_t capture_credit_bytes = 0;
  int32_t planned_draws = 0;  // token events of the step being planned

  std::shared_ptr<const ResidentAdapter> adapter;  // null: the base model
  std::vector<SteeringEntry> steering;
  std::vector<ProbeEntry> probes;
  std::optional<PromptGates> prompt_gates;  // until they are decided
  std::vector<TextPattern> texts;           // what steerings, probes and the capture look for
  int32_t capture_text = kNoText;
  std::optional<CaptureState> capture;
  /// Rows whose logits score the next prompt token and were not scored yet.
  PositionRange to_score;

  std::vector<CompletionState> completions;
  std::vector<AppliedSum> prompt_applied;            // one a steering
  std::vector<std::unique_ptr<Sequence>> sequences;  // not finished; the prompt's, or one a live
                                                     // completion in rising order
  std::vector<Digest> prompt_keys;                   // of the full blocks of the prompt
  std::vector<Digest> shadow_prompt_keys;

  uint32_t cached_prompt_tokens = 0;
  bool admitted = false;
  uint64_t submit_ns = 0;
  uint64_t scheduled_ns = 0;
  uint64_t first_token_ns = 0;
  uint64_t prefilled_ns = 0;

  int32_t prompt_tokens() const { return static_cast<int32_t>(spec.prompt_token_ids.size()); }
  /// Its prefill is for the gates on the prompt: nothing is captured, scored or probed for the
  /// client until they are decided.
  bool evaluating() const { return prompt_gates.has_value(); }
  int32_t live_completions() const;
  /// Positions of the request that are ever computed: the last generated token is not.
  int32_t computed_end() const {
    const auto generated = static_cast<int32_t>(spec.max_new_tokens);
    return prompt_tokens() + (generated > 0 ? generated - 1 : 0);
  }
};

/// Looks for the texts in the prompt and sets where everything acts.
void ReadPrompt(Sequence& sequence, const TokenTexts& token_texts);
/// Takes note of the last known token: texts that it completes, and what begins to act.
void ReadLastToken(Sequence& sequence, const TokenTexts& token_texts);
/// Sets `acts` and, of a prompt or a completion, what its first positions are.
void ResolvePositions(Sequence& sequence);

/// Keys of the blocks of a sequence. The tokens of the block must be known.
class BlockKeys {
 public:
  BlockKeys(int32_t block_tokens, int32_t last_layer)
      : block_tokens_(block_tokens), last_layer_(last_layer) {}

  PositionRange Positions(int32_t block) const {
    return {block * block_tokens_, (block + 1) * block_tokens_};
  }
  /// `[block_tokens]`
  std::vector<uint32_t> Tokens(const Sequence& sequence, int32_t block) const;
  /// Computed once and kept with the request or the sequence.
  const Digest& Key(Sequence& sequence, int32_t block) const;

 private:
  Digest Next(const Sequence& sequence, int32_t block, const Digest* parent) const;

  int32_t block_tokens_;
  int32_t last_layer_;
};

}  // namespace llama_steer
