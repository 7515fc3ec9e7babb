// Drawing and scoring tokens from one row of logits.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"

namespace llama_steer::cpu {

/// A token that may still be drawn.
struct Candidate {
  float logit = 0.0f;
  uint32_t token_id = 0;
  float weight = 0.0f;  // exp((logit − largest) / temperature)
};

/// Scratch of one worker, kept between calls.
struct SampleScratch {
  std::vector<float> logits;   // with bias and penalties
  std::vector<float> weights;  // of the whole vocabulary, or of the candidates
  std::vector<double> sums;    // of blocks of weights
  std::vector<float> maxima;   // of blocks of logits
  std::vector<Candidate> candidates;
};

/// `logits` is one row of the vocabulary, finite or -Inf. Draws as SampleRow says.
uint32_t DrawToken(std::span<const float> logits, float largest, const SampleRow& row,
                   SampleScratch& scratch);

/// Leaves in `scratch.candidates` the `count` largest logits: falling, ties by rising id.
void KeepLargest(std::span<const float> logits, size_t count, SampleScratch& scratch);

/// `logits` is one row of the vocabulary; ids of the row were checked against its size.
SampleResult SampleOne(std::span<const float> logits, const SampleRow& row, SampleScratch& scratch);

}  // namespace llama_steer::cpu
