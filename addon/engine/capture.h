// Capture of activations: which device sites a request reads, and the events made of the rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/event.h"
#include "engine/request.h"
#include "engine/steering_effects.h"

namespace llama_steer {

/// One (site, layer) of the request and the staging row of a token that holds it.
struct CaptureOutput {
  CaptureSiteKind site = CaptureSiteKind::kResidPost;
  int32_t layer = 0;
  int32_t ordinal = 0;
};

/// What one request captures, and how far it is.
struct CaptureState {
  CaptureParams params;
  std::vector<CaptureOutput> outputs;
  std::vector<int32_t> device_sites;  // by ordinal; outputs that mean the same row share one
  PositionRange todo;                 // positions not captured yet
  int32_t first_position = 0;         // of the selection
  int64_t token_bytes = 0;            // of the events of one token, see EventBytes
  int32_t computed_end = 0;           // of the positions that the request computes
  bool waits_for_text = false;        // `todo` begins when params.after_text has appeared

  /// For `mean`: sums in token order, [ordinals, hidden_size], and the token ids at both ends.
  std::vector<double> sums;
  std::vector<float> means;  // of TakeMeans, [ordinals, hidden_size]
  int32_t summed_tokens = 0;
  uint32_t first_token = 0;
  uint32_t last_token = 0;

  int32_t rows_per_token() const { return static_cast<int32_t>(device_sites.size()); }
  /// The token at `position` completes the text; told again, nothing happens.
  void BeginAfter(int32_t position);
};

/// `computed_end`: end of the positions that the request computes. kInvalidArgument for a
/// selection without sites, layers or computed positions.
StatusOr<CaptureState> MakeCaptureState(const CaptureParams& params, int32_t model_layers,
                                        int32_t computed_end);

/// What an entry of the lens counts against the credit: about what it takes on its way.
inline constexpr int64_t kLensEntryBytes = 64;

/// Rows that the lens reads in one step for one request, a token's rows at least: unembedding is
/// as dear as some blocks of the model, and others wait for the step to end.
inline constexpr int64_t kLensRowsPerStep = 256;

/// Bytes of an event that count against the request's credit.
int64_t EventBytes(const ActivationEvent& event);

/// The same for all events of one token.
int64_t TokenBytes(const CaptureState& capture, int64_t hidden_size);

/// Rows of consecutive positions that were captured in one step.
struct CapturedRows {
  int32_t first_position = 0;
  std::span<const uint32_t> token_ids;  // [tokens]
  const float* staging = nullptr;       // [tokens, rows_per_token, hidden_size]
  int64_t hidden_size = 0;
};

/// Takes the rows at todo.begin: events for them, or none when a mean is asked for. Either all are
/// of the prompt or all of a completion; the caller sets which.
std::vector<ActivationEvent> TakeRows(RequestId id, CaptureState& capture,
                                      const CapturedRows& rows);

/// The means of what was captured, at most once; empty when none is asked for or due.
std::vector<ActivationEvent> TakeMeans(RequestId id, CaptureState& capture, int64_t hidden_size);

}  // namespace llama_steer
