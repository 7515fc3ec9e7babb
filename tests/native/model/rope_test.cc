#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace llama_steer {
namespace {

struct Expected {
  size_t index;
  float frequency;
};

LlamaConfig Config(int32_t head_size, double theta) {
  LlamaConfig config;
  config.head_size = head_size;
  config.rope_theta = theta;
  return config;
}

/// Recorded from LlamaRotaryEmbedding of transformers 5.24, which takes powers in float32: the last
/// bits may differ.
void ExpectFrequencies(const LlamaConfig& config, std::initializer_list<Expected> expected) {
  const std::vector<float> frequencies = InverseFrequencies(config);
  ASSERT_EQ(frequencies.size(), static_cast<size_t>(config.head_size) / 2);
  for (const Expected& pair : expected) {
    EXPECT_NEAR(frequencies[pair.index], pair.frequency, 3e-7f * pair.frequency)
        << "pair " << pair.index;
  }
}

TEST(Rope, Default) {
  ExpectFrequencies(Config(64, 10000.0), {{0, 1.0f},
                                          {1, 0x1.7ff222p-1f},
                                          {8, 0x1.99999ap-4f},
                                          {16, 0x1.47ae14p-7f},
                                          {31, 0x1.17a8e4p-13f}});
}

TEST(Rope, Linear) {
  LlamaConfig config = Config(64, 10000.0);
  config.rope_linear_factor = 4.0;
  ExpectFrequencies(config, {{0, 0.25f}, {1, 0x1.7ff222p-3f}, {31, 0x1.17a8e4p-15f}});
}

TEST(Rope, Llama31) {
  LlamaConfig config = Config(128, 500000.0);
  config.rope_scaling = {8.0, 1.0, 4.0, 8192.0};
  ExpectFrequencies(config, {{0, 1.0f},
                             {1, 0x1.a11582p-1f},
                             {16, 0x1.341190p-5f},
                             {32, 0x1.132ba4p-11f},  // between the two wavelengths
                             {48, 0x1.be2188p-18f},
                             {63, 0x1.4985fep-22f}});
}

TEST(Rope, Llama32) {
  LlamaConfig config = Config(64, 500000.0);
  config.rope_scaling = {32.0, 1.0, 4.0, 8192.0};
  ExpectFrequencies(config, {{0, 1.0f},
                             {1, 0x1.53c38cp-1f},
                             {16, 0x1.c26c40p-12f},  // between the two wavelengths
                             {31, 0x1.948360p-24f}});
}

}  // namespace
}  // namespace llama_steer
