// Drawing and scoring tokens: one block a row of logits, nothing is sorted. Masses of probability
// are integers (2^-40 of the most probable token), so that their sums do not depend on an order.
#pragma once

#include "device/device.h"

namespace llama_steer::cuda {

/// A change of one logit, before anything is drawn.
struct LogitChange {
  uint32_t token_id = 0;
  float bias = 0.0f;
  uint32_t seen = 0;  // the penalties apply
  uint32_t generated_count = 0;
};

/// SampleRow in device memory.
struct DeviceSampleRow {
  int32_t logits_row = 0;
  int64_t forced_token = -1;
  float temperature = 1.0f;
  float top_p = 1.0f;
  float min_p = 0.0f;
  uint32_t top_k = 0;  // 0: off
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint32_t change_begin = 0;  // its changes: distinct tokens of `changes`
  uint32_t change_end = 0;
  uint64_t seed = 0;
  uint32_t completion = 0;
  uint32_t position = 0;
  bool logprob = false;
  uint32_t top_logprobs = 0;
  int32_t reference_row = -1;
};

struct DeviceSampleResult {
  double kl = 0.0;
  uint32_t token_id = 0;
  float logprob = 0.0f;
  uint32_t nonfinite = 0;
};
struct DeviceTokenLogprob {
  uint32_t token_id = 0;
  float logprob = 0.0f;
};

struct SampleParams {
  const float* logits = nullptr;  // [logits rows, vocabulary], unmodified
  int32_t vocabulary = 0;
  const DeviceSampleRow* rows = nullptr;
  int32_t row_count = 0;
  const LogitChange* changes = nullptr;
  float* changed = nullptr;  // [rows, vocabulary], scratch for rows with changes
  DeviceSampleResult* results = nullptr;
  DeviceTokenLogprob* top = nullptr;  // [rows, top_stride]
  uint32_t top_stride = 0;
};
cudaError_t Sample(const SampleParams& params, cudaStream_t stream);

}  // namespace llama_steer::cuda
