#include "backend/cpu/sample.h"

#include <cmath>

#include "backend/cpu/vocabulary_scan.h"

namespace llama_steer::cpu {
namespace {

bool ChangesLogits(const SampleRow& row) {
  return !row.bias.empty() ||
         (!row.seen.empty() && (row.repetition_penalty != 1.0f || row.presence_penalty != 0.0f ||
                                row.frequency_penalty != 0.0f));
}

void ApplyBiasAndPenalties(const SampleRow& row, std::vector<float>& logits) {
  for (const TokenBias& bias : row.bias) logits[bias.token_id] += bias.bias;
  for (const SeenToken& seen : row.seen) {
    float& logit = logits[seen.token_id];
    if (row.repetition_penalty != 1.0f) {
      logit = logit > 0.0f ? logit / row.repetition_penalty : logit * row.repetition_penalty;
    }
    if (seen.generated_count > 0) {
      logit -= row.presence_penalty;
      logit -= row.frequency_penalty * static_cast<float>(seen.generated_count);
    }
  }
}

/// False when nothing can be drawn: a logit is NaN or +Inf, or all are -Inf.
bool IsUsable(const LargestLogit& largest) { return !largest.nan && std::isfinite(largest.value); }

/// Greedy or drawn, from the logits with bias and penalties. Sets `nonfinite` instead of an id when
/// those leave nothing to choose from.
void Choose(std::span<const float> logits, LargestLogit largest, const SampleRow& row,
            SampleScratch& scratch, SampleResult& result) {
  if (ChangesLogits(row)) {
    scratch.logits.assign(logits.begin(), logits.end());
    ApplyBiasAndPenalties(row, scratch.logits);
    logits = scratch.logits;
    largest = FindLargest(logits);
    if (!IsUsable(largest)) {
      result.nonfinite = true;
      return;
    }
  }
  result.token_id = row.temperature == 0.0f ? FirstEqual(logits, largest.value)
                                            : DrawToken(logits, largest.value, row, scratch);
}

/// Of the unmodified logits.
void AddLogprobs(std::span<const float> logits, float largest, const SampleRow& row,
                 SampleScratch& scratch, SampleResult& result) {
  const double log_sum = std::log(SumOfExponentials(logits, largest));
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - largest - log_sum);
  };
  result.logprob = logprob(logits[result.token_id]);
  if (row.top_logprobs == 0) return;
  KeepLargest(logits, row.top_logprobs, scratch);
  for (const Candidate& candidate : scratch.candidates) {
    result.top.push_back({candidate.token_id, logprob(candidate.logit)});
  }
}

}  // namespace

SampleResult SampleOne(std::span<const float> logits, const SampleRow& row,
                       SampleScratch& scratch) {
  SampleResult result;
  const LargestLogit largest = FindLargest(logits);
  if (!IsUsable(largest)) {
    result.nonfinite = true;
    return result;
  }
  if (row.forced_token >= 0) {
    result.token_id = static_cast<uint32_t>(row.forced_token);
  } else {
    Choose(logits, largest, row, scratch, result);
    if (result.nonfinite) return result;
  }
  if (row.logprob || row.top_logprobs > 0) {
    AddLogprobs(logits, largest.value, row, scratch, result);
  }
  return result;
}

}  // namespace llama_steer::cpu
