// What the engine tells its client. Field order as in src/native/binding.ts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/request.h"
#include "support/status.h"

namespace llama_steer {

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled };

struct ScoredToken {
  uint32_t token_id = 0;
  float logprob = 0.0f;
  std::vector<TokenLogprob> top;
};

/// Weights are being loaded.
struct LoadProgressEvent {
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;
};

/// The engine accepts requests.
struct ReadyEvent {
  DeviceInfo device;
  std::string device_fallback;  // why "auto" came to the CPU; empty: it did not
  std::string weight_dtype;     // "bf16", "f16", "f32", "int8", "fp8"
  std::string kv_dtype;
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;
  int32_t kv_blocks = 0;
  int32_t kv_block_tokens = 0;
};

/// The engine is gone (load failed, device fault); every request has had its terminal event.
struct FatalEvent {
  Status status;
};

/// Scored prompt tokens, in order, possibly over several events.
struct PromptLogprobsEvent {
  RequestId id = 0;
  int32_t first_position = 0;
  std::vector<ScoredToken> tokens;
};

/// One generated token of one completion.
struct TokenEvent {
  RequestId id = 0;
  uint32_t completion = 0;
  ScoredToken token;
  bool has_logprob = false;
  FinishReason finish = FinishReason::kNone;  // not kNone: the last token of this completion
  /// KL(steered || unsteered) in nats of the distribution that the token was drawn from, before
  /// sampling options; when it was asked for.
  std::optional<double> kl_to_unsteered;
};

/// Scores of one probe at consecutive positions. Takes no credit.
struct ProbeScoresEvent {
  RequestId id = 0;
  int32_t completion = -1;  // -1: positions of the prompt, shared by all completions
  uint32_t probe = 0;       // index in the request
  std::vector<int32_t> positions;
  std::vector<float> scores;
};

/// Rows captured at one site of one block; positions ascending. A mean has positions of the whole
/// selection's first and last token and one row.
struct ActivationEvent {
  RequestId id = 0;
  CaptureSiteKind site = CaptureSiteKind::kResidPost;
  int32_t layer = 0;
  std::vector<int32_t> positions;
  std::vector<uint32_t> token_ids;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<uint8_t> data;                    // little-endian, row-major
  std::vector<std::vector<TokenLogprob>> lens;  // [rows][lens_top_k]; empty without a lens
  int32_t completion = -1;                      // -1: rows of the prompt
};

/// Proof of one steering, as reported by the kernels.
struct AppliedSteeringReport {
  uint32_t prompt_tokens = 0;     // prompt tokens it acted on (cached ones included)
  uint32_t generated_tokens = 0;  // over all completions
  uint64_t steered_rows = 0;      // (token, layer) pairs
  double mean_delta_ratio = 0.0;  // mean of ‖Δh‖ / ‖h‖ over steered_rows
  uint64_t gate_evaluations = 0;  // tokens, or 1 for a gate on the prompt
  uint64_t gate_fired = 0;        // of those
  /// First position that it is meant for, one a completion; -1: `after_text` has not appeared.
  std::vector<int32_t> first_positions;
};

struct RequestTimings {
  uint64_t queue_ns = 0;                // submit -> first scheduled
  uint64_t prefill_ns = 0;              // first scheduled -> first token (or end of prefill)
  uint64_t decode_ns = 0;               // first token -> end
  uint64_t time_to_first_token_ns = 0;  // submit -> first token; 0 when there is none
};

/// Ends a request: exactly one, always the last event of its id.
struct DoneEvent {
  RequestId id = 0;
  Status status;                             // ok, or why the request failed
  std::vector<FinishReason> finish_reasons;  // [completions]
  uint32_t prompt_tokens = 0;
  uint32_t cached_prompt_tokens = 0;
  uint32_t completion_tokens = 0;
  RequestTimings timings;
  std::vector<AppliedSteeringReport> applied;  // one a steering
};

using EngineEvent = std::variant<LoadProgressEvent, ReadyEvent, FatalEvent, PromptLogprobsEvent,
                                 TokenEvent, ProbeScoresEvent, ActivationEvent, DoneEvent>;

}  // namespace llama_steer
