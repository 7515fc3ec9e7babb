// Drawing and scoring tokens from one row of logits.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"
#include "support/thread_pool.h"

namespace llama_steer::cpu {

/// A token that may still be drawn.
struct Candidate {
  float logit = 0.0f;
  uint32_t token_id = 0;
};

/// Scratch of one worker, kept between calls.
struct SampleScratch {
  std::vector<float> logits;
  std::vector<Candidate> candidates;
  std::vector<double> weights;
};

/// `logits` is one row of the vocabulary.
SampleResult SampleOne(std::span<const float> logits, const SampleRow& row, SampleScratch& scratch);

/// max and log Σ exp(logit − max), both in one fixed order.
struct SoftmaxStats {
  float largest = 0.0f;
  double log_sum = 0.0;
  bool nonfinite = false;  // NaN or +Inf among the logits, or nothing finite at all
};
SoftmaxStats ComputeSoftmaxStats(std::span<const float> logits);

}  // namespace llama_steer::cpu
