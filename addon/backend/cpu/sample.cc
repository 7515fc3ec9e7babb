#include "backend/cpu/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/philox.h"

namespace llama_steer::cpu {
namespace {

/// By falling logit, ties by rising id: one order for top-k, top-p, top logprobs and draws.
bool Before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token_id < b.token_id);
}

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

uint32_t Greedy(std::span<const float> logits) {
  uint32_t best = 0;
  for (uint32_t id = 1; id < logits.size(); ++id) {
    if (logits[id] > logits[best]) best = id;
  }
  return best;
}

/// Leaves the first `count` candidates of the order `Before`, sorted.
void KeepFirst(std::vector<Candidate>& candidates, size_t count) {
  if (count < candidates.size()) {
    const auto end = candidates.begin() + static_cast<std::ptrdiff_t>(count);
    std::nth_element(candidates.begin(), end, candidates.end(), Before);
    candidates.resize(count);
  }
  std::sort(candidates.begin(), candidates.end(), Before);
}

/// Sorted prefix whose mass reaches top_p of `total`; sorts no more of the list than it needs.
void KeepMass(std::vector<Candidate>& candidates, float top_p, float temperature, float largest,
              double total) {
  size_t sorted = 0;
  double mass = 0.0;
  for (size_t size = 256; sorted < candidates.size(); size *= 8) {
    const size_t end = std::min(candidates.size(), size);
    const auto from = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
    const auto to = candidates.begin() + static_cast<std::ptrdiff_t>(end);
    if (to != candidates.end()) std::nth_element(from, to, candidates.end(), Before);
    std::sort(from, to, Before);
    for (; sorted < end; ++sorted) {
      mass += std::exp(static_cast<double>(candidates[sorted].logit - largest) / temperature);
      if (mass >= static_cast<double>(top_p) * total) {
        candidates.resize(sorted + 1);
        return;
      }
    }
  }
}

double MassOf(std::span<const Candidate> candidates, float temperature, float largest) {
  double total = 0.0;
  for (const Candidate& candidate : candidates) {
    total += std::exp(static_cast<double>(candidate.logit - largest) / temperature);
  }
  return total;
}

/// Inverse of the cumulative distribution over the candidates, in their order.
uint32_t DrawFrom(std::span<const Candidate> candidates, float temperature, float largest,
                  double uniform, std::vector<double>& weights) {
  weights.clear();
  double total = 0.0;
  for (const Candidate& candidate : candidates) {
    total += std::exp(static_cast<double>(candidate.logit - largest) / temperature);
    weights.push_back(total);
  }
  const auto at = std::upper_bound(weights.begin(), weights.end(), uniform * total);
  const auto index = static_cast<size_t>(at - weights.begin());
  return candidates[std::min(index, candidates.size() - 1)].token_id;
}

uint32_t Draw(std::span<const float> logits, const SampleRow& row, SampleScratch& scratch) {
  std::vector<Candidate>& candidates = scratch.candidates;
  candidates.clear();
  float largest = -std::numeric_limits<float>::infinity();
  for (uint32_t id = 0; id < logits.size(); ++id) {
    if (logits[id] == -std::numeric_limits<float>::infinity()) continue;
    candidates.push_back({logits[id], id});
    largest = std::max(largest, logits[id]);
  }
  if (row.top_k > 0) KeepFirst(candidates, row.top_k);
  if (row.top_p < 1.0f) {
    const double total = MassOf(candidates, row.temperature, largest);
    KeepMass(candidates, row.top_p, row.temperature, largest, total);
  }
  if (row.min_p > 0.0f) {
    // p / p_max = exp((logit − largest) / temperature)
    const double least = std::log(static_cast<double>(row.min_p)) * row.temperature;
    std::erase_if(candidates, [&](const Candidate& candidate) {
      return static_cast<double>(candidate.logit - largest) < least;
    });
  }
  const double uniform = PhiloxUniform(row.seed, row.completion, row.position);
  return DrawFrom(candidates, row.temperature, largest, uniform, scratch.weights);
}

std::vector<TokenLogprob> TopLogprobs(std::span<const float> logits, uint32_t count,
                                      const SoftmaxStats& stats,
                                      std::vector<Candidate>& candidates) {
  candidates.clear();
  for (uint32_t id = 0; id < logits.size(); ++id) candidates.push_back({logits[id], id});
  KeepFirst(candidates, count);
  std::vector<TokenLogprob> top;
  for (const Candidate& candidate : candidates) {
    const double shifted = static_cast<double>(candidate.logit) - stats.largest;
    top.push_back({candidate.token_id, static_cast<float>(shifted - stats.log_sum)});
  }
  return top;
}

}  // namespace

SampleResult SampleOne(std::span<const float> logits, const SampleRow& row,
                       SampleScratch& scratch) {
  SampleResult result;
  const SoftmaxStats stats = ComputeSoftmaxStats(logits);
  if (stats.nonfinite) {
    result.nonfinite = true;
    return result;
  }
  if (row.forced_token >= 0) {
    result.token_id = static_cast<uint32_t>(row.forced_token);
  } else {
    std::span<const float> changed = logits;
    if (ChangesLogits(row)) {
      scratch.logits.assign(logits.begin(), logits.end());
      ApplyBiasAndPenalties(row, scratch.logits);
      changed = scratch.logits;
    }
    result.token_id = row.temperature == 0.0f ? Greedy(changed) : Draw(changed, row, scratch);
  }
  if (row.logprob || row.top_logprobs > 0) {
    const double shifted = static_cast<double>(logits[result.token_id]) - stats.largest;
    result.logprob = static_cast<float>(shifted - stats.log_sum);
  }
  if (row.top_logprobs > 0) {
    result.top = TopLogprobs(logits, row.top_logprobs, stats, scratch.candidates);
  }
  return result;
}

}  // namespace llama_steer::cpu
