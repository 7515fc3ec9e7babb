// Vectorised passes over one row of logits, each in one fixed order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace llama_steer::cpu {

struct LargestLogit {
  float value = 0.0f;
  bool nan = false;  // NaN among the logits; value then means nothing
};
LargestLogit FindLargest(std::span<const float> logits);

/// Lowest token id with exactly this logit; the size of the row when there is none.
uint32_t FirstEqual(std::span<const float> logits, float value);

/// Σ exp(logit − largest).
double SumOfExponentials(std::span<const float> logits, float largest);

/// Values that one entry of a block table stands for.
inline constexpr size_t kBlockLogits = 256;
inline constexpr size_t BlockCount(size_t logits) {
  return (logits + kBlockLogits - 1) / kBlockLogits;
}

/// maxima[b] = the largest logit of block b.
void BlockMaxima(std::span<const float> logits, std::span<float> maxima);

/// weights[i] = exp((logit[i] − largest) / temperature), 0 where that is below `least`;
/// sums[b] = Σ weights of block b.
void SoftmaxWeights(std::span<const float> logits, float largest, float temperature, float least,
                    std::span<float> weights, std::span<double> sums);

}  // namespace llama_steer::cpu
