// Temperature, top-k, top-p, min-p and the draw. The vocabulary is never sorted as a whole: bounds
// that are cheap to find leave few candidates first.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "backend/cpu/philox.h"
#include "backend/cpu/sample.h"
#include "backend/cpu/vocabulary_scan.h"

namespace llama_steer::cpu {
namespace {

/// By falling logit, ties by rising id: one order for top-k, top-p, top logprobs and draws.
bool Before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token_id < b.token_id);
}

/// A logit that at least `count` of the vocabulary reach: the count-th largest block maximum.
float BoundOfLargest(std::span<const float> logits, size_t count, std::vector<float>& maxima) {
  maxima.resize(BlockCount(logits.size()));
  if (count > maxima.size()) return -std::numeric_limits<float>::infinity();
  BlockMaxima(logits, maxima);
  std::vector<float>::iterator nth = maxima.begin() + static_cast<std::ptrdiff_t>(count - 1);
  std::nth_element(maxima.begin(), nth, maxima.end(), std::greater<>());
  return *nth;
}

double WeightAll(std::span<const float> logits, float largest, float temperature, float least,
                 SampleScratch& scratch) {
  scratch.weights.resize(logits.size());
  scratch.sums.resize(BlockCount(logits.size()));
  SoftmaxWeights(logits, largest, temperature, least, scratch.weights, scratch.sums);
  double total = 0.0;
  for (const double sum : scratch.sums) total += sum;
  return total;
}

/// Weights of the candidates; returns their sum.
double WeightCandidates(float largest, float temperature, SampleScratch& scratch) {
  std::vector<float> logits;
  for (const Candidate& candidate : scratch.candidates) logits.push_back(candidate.logit);
  const double total = WeightAll(logits, largest, temperature, 0.0f, scratch);
  for (size_t i = 0; i < logits.size(); ++i) scratch.candidates[i].weight = scratch.weights[i];
  return total;
}

/// Candidates that can be among the fewest that hold `top_p` of the mass. Those lighter than
/// (1 − top_p) / V of it weigh less than 1 − top_p together, so the others hold enough.
void KeepHeavy(std::span<const float> logits, float top_p, double total, SampleScratch& scratch) {
  constexpr double kForRounding = 0.99;
  const double share = (1.0 - static_cast<double>(top_p)) / static_cast<double>(logits.size());
  const auto least = static_cast<float>(kForRounding * share * total);
  scratch.candidates.clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    const float weight = scratch.weights[id];
    if (weight >= least) {
      scratch.candidates.push_back({logits[id], static_cast<uint32_t>(id), weight});
    }
  }
}

/// The shortest prefix in order whose mass reaches `mass`; sorts no more of the list than it needs.
void KeepMass(std::vector<Candidate>& candidates, double mass) {
  size_t sorted = 0;
  double sum = 0.0;
  for (size_t size = 256; sorted < candidates.size(); size *= 8) {
    const size_t end = std::min(candidates.size(), size);
    const auto from = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
    const auto to = candidates.begin() + static_cast<std::ptrdiff_t>(end);
    if (to != candidates.end()) std::nth_element(from, to, candidates.end(), Before);
    std::sort(from, to, Before);
    for (; sorted < end; ++sorted) {
      sum += static_cast<double>(candidates[sorted].weight);
      if (sum >= mass) {
        candidates.resize(sorted + 1);
        return;
      }
    }
  }
}

/// First item whose running sum passes `target`; a sum that rounding keeps below it takes the last
/// item that weighs anything.
template <class Weights>
size_t ItemAt(const Weights& weights, size_t count, double target) {
  size_t last = 0;
  double sum = 0.0;
  for (size_t i = 0; i < count; ++i) {
    const auto weight = static_cast<double>(weights(i));
    if (weight <= 0.0) continue;
    sum += weight;
    last = i;
    if (sum > target) break;
  }
  return last;
}

/// Inverse of the cumulative distribution over the whole vocabulary, by rising id.
uint32_t DrawFromVocabulary(size_t size, double total, double uniform,
                            const SampleScratch& scratch) {
  const double target = uniform * total;
  const size_t block =
      ItemAt([&](size_t i) { return scratch.sums[i]; }, scratch.sums.size(), target);
  double before = 0.0;
  for (size_t i = 0; i < block; ++i) before += scratch.sums[i];
  const size_t first = block * kBlockLogits;
  const size_t in_block = ItemAt([&](size_t i) { return scratch.weights[first + i]; },
                                 std::min(kBlockLogits, size - first), target - before);
  return static_cast<uint32_t>(first + in_block);
}

uint32_t DrawFromCandidates(std::span<const Candidate> candidates, double uniform) {
  double total = 0.0;
  for (const Candidate& candidate : candidates) total += static_cast<double>(candidate.weight);
  const size_t index =
      ItemAt([&](size_t i) { return candidates[i].weight; }, candidates.size(), uniform * total);
  return candidates[index].token_id;
}

}  // namespace

void KeepLargest(std::span<const float> logits, size_t count, SampleScratch& scratch) {
  std::vector<Candidate>& candidates = scratch.candidates;
  candidates.clear();
  const float bound = BoundOfLargest(logits, count, scratch.maxima);
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] >= bound) candidates.push_back({logits[id], static_cast<uint32_t>(id), 0.0f});
  }
  if (count < candidates.size()) {
    const auto end = candidates.begin() + static_cast<std::ptrdiff_t>(count);
    std::nth_element(candidates.begin(), end, candidates.end(), Before);
    candidates.resize(count);
  }
  std::sort(candidates.begin(), candidates.end(), Before);
}

uint32_t DrawToken(std::span<const float> logits, float largest, const SampleRow& row,
                   SampleScratch& scratch) {
  const double uniform = PhiloxUniform(row.seed, row.completion, row.position);
  const bool limited = row.top_k > 0 && row.top_k < logits.size();
  // Weights are relative to the most probable token, whose weight is 1, and so is min-p.
  if (!limited && row.top_p >= 1.0f) {
    const double total = WeightAll(logits, largest, row.temperature, row.min_p, scratch);
    return DrawFromVocabulary(logits.size(), total, uniform, scratch);
  }
  double total = 0.0;
  if (limited) {
    KeepLargest(logits, row.top_k, scratch);
    total = WeightCandidates(largest, row.temperature, scratch);
  } else {
    total = WeightAll(logits, largest, row.temperature, 0.0f, scratch);
    KeepHeavy(logits, row.top_p, total, scratch);
  }
  if (row.top_p < 1.0f) KeepMass(scratch.candidates, static_cast<double>(row.top_p) * total);
  std::erase_if(scratch.candidates,
                [&](const Candidate& candidate) { return candidate.weight < row.min_p; });
  return DrawFromCandidates(scratch.candidates, uniform);
}

}  // namespace llama_steer::cpu
