// What a client of the engine asks for. Token ids, handles, absolute positions and rows of
// floats only; names, text and policy live above (src/). Field order as in src/native/binding.ts.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/lora.h"

namespace llama_steer {

using RequestId = uint64_t;
using VectorHandle = uint64_t;
using AdapterHandle = uint64_t;

/// The base model as it was loaded.
inline constexpr AdapterHandle kNoAdapter = 0;

inline constexpr int32_t kOpenEnd = INT32_MAX;

struct SamplingParams {
  float temperature = 1.0f;
  float top_p = 1.0f;
  uint32_t top_k = 0;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
  std::vector<uint32_t> stop_token_ids;  // the EOS set included, unless it is to be ignored
  std::vector<TokenBias> logit_bias;
  bool logprobs = false;      // report the logprob of each token
  uint32_t top_logprobs = 0;  // and of the k most likely ones
};

enum class GateScope : uint8_t { kEachToken, kPromptLastToken, kPromptMean };

/// The condition of a steering: a score of the residual stream after block `layer`, before the
/// steerings of that block, strictly above or below the threshold.
struct GateParams {
  VectorHandle vector = 0;
  int32_t layer = 0;
  GateMetric metric = GateMetric::kDot;
  GateComparator comparator = GateComparator::kAbove;
  float threshold = 0.0f;
  GateScope scope = GateScope::kEachToken;
  /// The prompt of the kPrompt scopes is positions [0, prompt_tokens); 0: all that was submitted.
  /// In a scored sequence the continuation is no part of it.
  int32_t prompt_tokens = 0;
};

/// One steering of a request, resolved: explicit blocks, absolute half-open position range.
struct SteeringParams {
  VectorHandle vector = 0;
  SteerKind kind = SteerKind::kAdd;
  float coefficient = 1.0f;
  float clamp_min = 0.0f;
  float clamp_max = 0.0f;
  std::vector<int32_t> layers;  // ascending, each held by the vector
  bool preserve_norm = false;
  int32_t position_begin = 0;
  int32_t position_end = kOpenEnd;
  std::optional<GateParams> gate;
  /// UTF-8. Not empty: acts only on tokens after the one that completes this text for the first
  /// time in prompt and completion.
  std::vector<uint8_t> after_text{};
};

/// Sites as in the gRPC contract.
enum class CaptureSiteKind : uint8_t { kResidPre, kAttnOut, kMlpOut, kResidPost, kFinalNorm };

struct CaptureParams {
  std::vector<CaptureSiteKind> sites;
  std::vector<int32_t> layers;  // ascending
  int32_t position_begin = 0;   // positions in [begin, end) are captured
  int32_t position_end = kOpenEnd;
  bool mean = false;             // one row for each site and layer: the mean over the positions
  bool before_steering = false;  // RESID_PRE and RESID_POST before the steering of their block
  DType dtype = DType::kF32;     // kF32, kBF16 (round to nearest even) or kF16
  uint32_t lens_top_k = 0;       // most likely tokens of each captured row; 0: none
  std::vector<uint8_t> after_text{};  // as in SteeringParams
};

enum class ProbeRead : uint8_t { kEachToken, kPromptLast, kAfterText };

/// Score of the steered residual stream after block `layer`, r · d.
struct ProbeParams {
  VectorHandle vector = 0;
  int32_t layer = 0;
  ProbeRead read = ProbeRead::kEachToken;
  std::vector<uint8_t> after_text{};  // kAfterText: read at the token that completes it
};

struct EngineRequest {
  RequestId id = 0;
  std::vector<uint32_t> prompt_token_ids;
  uint32_t completions = 1;     // n: they share the prompt's blocks
  uint32_t max_new_tokens = 0;  // 0: prefill only (scoring, capture)
  SamplingParams sampling;
  std::vector<SteeringParams> steering;
  std::optional<CaptureParams> capture;
  /// Logprobs of prompt tokens at positions >= this are reported (>= 1); none when absent.
  std::optional<int32_t> prompt_logprobs_from;
  /// Events that may be sent before Grant(): one for a token event, one for an activation event.
  /// 0 credits: the request is not scheduled.
  uint32_t credits = 0;
  /// Bytes of captured rows that may be sent before Grant(), see CaptureState::token_bytes. A token
  /// whose rows are not covered is not computed. At least one token's, unless a mean is captured.
  uint64_t capture_credit_bytes = 0;
  /// In the proof, prompt tokens from here on count as generated: the continuation of a scored
  /// sequence. 0: none.
  int32_t proof_prompt_tokens = 0;
  /// Separates prefix caches of tenants; part of every block key.
  std::string cache_salt;
  /// Absolute, CLOCK_MONOTONIC nanoseconds; 0: none. Passed: ended with kDeadlineExceeded.
  uint64_t deadline_ns = 0;
  AdapterHandle adapter = kNoAdapter;
  std::vector<ProbeParams> probes;
  /// Report KL(steered || unsteered) with every token.
  bool compare_unsteered = false;
};

/// A vector's content, keyed by handle.
struct VectorRows {
  VectorHandle handle = 0;
  std::array<uint8_t, 32> digest{};      // sha256 of the content; part of the prefix-cache key
  std::vector<int32_t> layers;           // ascending
  std::vector<std::vector<float>> rows;  // [layers][hidden_size]
};

/// An adapter's files, keyed by handle.
struct AdapterFiles {
  AdapterHandle handle = kNoAdapter;
  std::array<uint8_t, 32> digest{};  // sha256 of the content; part of the prefix-cache key
  LoraFiles lora;
};

}  // namespace llama_steer
