#include "model/rope.h"

#include <cmath>
#include <numbers>

namespace llama_steer {
namespace {

/// Llama 3.1: wavelengths beyond the original context are slowed by `factor`, short ones are kept,
/// those between are blended.
double ScaleLlama3(double frequency, const Llama3RopeScaling& scaling) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const double context = scaling.original_context_tokens;
  if (wavelength < context / scaling.high_frequency_factor) return frequency;
  if (wavelength > context / scaling.low_frequency_factor) return frequency / scaling.factor;
  const double blend = (context / wavelength - scaling.low_frequency_factor) /
                       (scaling.high_frequency_factor - scaling.low_frequency_factor);
  return (1.0 - blend) * frequency / scaling.factor + blend * frequency;
}

}  // namespace

std::vector<float> InverseFrequencies(const LlamaConfig& config) {
  std::vector<float> frequencies;
  for (int32_t i = 0; i < config.head_size / 2; ++i) {
    const double exponent = 2.0 * i / config.head_size;
    double frequency = 1.0 / std::pow(config.rope_theta, exponent);
    if (config.rope_scaling) frequency = ScaleLlama3(frequency, *config.rope_scaling);
    frequencies.push_back(static_cast<float>(frequency / config.rope_linear_factor));
  }
  return frequencies;
}

}  // namespace llama_steer
