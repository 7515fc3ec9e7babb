// KL between two rows of logits, against long double.
#include <cmath>
#include <limits>

#include "kernels/support.h"

namespace llama_steer {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

constexpr float kInfinity = std::numeric_limits<float>::infinity();

double KlExactly(const std::vector<float>& p, const std::vector<float>& q) {
  const auto log_sum = [](const std::vector<float>& logits) {
    long double sum = 0.0L;
    for (const float logit : logits) sum += std::exp(static_cast<long double>(logit));
    return std::log(sum);
  };
  const long double p_sum = log_sum(p);
  const long double q_sum = log_sum(q);
  long double kl = 0.0L;
  for (size_t i = 0; i < p.size(); ++i) {
    const long double log_p = static_cast<long double>(p[i]) - p_sum;
    const long double log_q = static_cast<long double>(q[i]) - q_sum;
    if (std::isfinite(log_p)) kl += std::exp(log_p) * (log_p - log_q);
  }
  return static_cast<double>(kl);
}

/// Row 0 is drawn from, row 1 is the reference.
SampleResult Compare(Backend& backend, const std::vector<float>& p, const std::vector<float>& q,
                     SampleRow row = {}) {
  std::vector<float> logits = p;
  logits.insert(logits.end(), q.begin(), q.end());
  row.reference_row = 1;
  SampleResult result;
  const Activations x = Upload(backend, logits, static_cast<int64_t>(p.size()));
  EXPECT_TRUE(backend.Sample(x, {&row, 1}, {&result, 1}).ok());
  return result;
}

using KlTest = KernelTest;
INSTANTIATE_FOR_EVERY_TARGET(KlTest);

TEST_P(KlTest, IsWhatLongDoubleSays) {
  const auto backend = Make(1);
  for (const size_t size : {1u, 2u, 7u, 8u, 33u, 1000u, 128256u}) {
    const auto p = RandomFloats(size, 1, 3.0f);
    for (const float change : {1e-4f, 0.1f, 2.0f, 20.0f}) {
      std::vector<float> q = RandomFloats(size, 2, change);
      for (size_t i = 0; i < size; ++i) q[i] += p[i];
      const double exact = KlExactly(p, q);
      EXPECT_NEAR(Compare(*backend, p, q).kl, exact, 1e-12 + 1e-9 * exact) << size << " " << change;
    }
  }
}

TEST_P(KlTest, IsExactlyZeroForEqualRows) {
  const auto backend = Make(1);
  for (const size_t size : {1u, 9u, 2048u, 4099u}) {
    const auto p = RandomFloats(size, 3, 5.0f);
    EXPECT_EQ(Compare(*backend, p, p).kl, 0.0);
  }
}

TEST_P(KlTest, DoesNotChangeWhenARowIsShifted) {
  const auto backend = Make(1);
  const std::vector<float> p = {0.0f, 1.0f, 2.5f, -4.0f, 1.0f, 0.5f, 0.25f, 3.0f, -1.0f};
  const std::vector<float> q = {1.0f, 0.0f, 2.0f, -3.0f, 1.0f, 0.5f, 1.25f, 2.0f, -2.0f};
  std::vector<float> shifted = q;
  for (float& value : shifted) value += 4096.0f;
  EXPECT_NEAR(Compare(*backend, p, shifted).kl, Compare(*backend, p, q).kl, 1e-12);
}

TEST_P(KlTest, TokensOfProbabilityZeroCountForNothingUnlessOnlyTheReferenceHasThem) {
  const auto backend = Make(1);
  std::vector<float> p = RandomFloats(40, 4);
  std::vector<float> q = RandomFloats(40, 5);
  p[3] = p[38] = -kInfinity;
  EXPECT_NEAR(Compare(*backend, p, q).kl, KlExactly(p, q), 1e-9);
  q[3] = q[38] = -kInfinity;
  EXPECT_NEAR(Compare(*backend, p, q).kl, KlExactly(p, q), 1e-9);
  q[20] = -kInfinity;
  EXPECT_EQ(Compare(*backend, p, q).kl, std::numeric_limits<double>::infinity());
}

TEST_P(KlTest, IsNotANumberWhenARowIsNotUsable) {
  const auto backend = Make(1);
  const auto good = RandomFloats(40, 6);
  for (const float bad : {std::nanf(""), kInfinity}) {
    std::vector<float> broken = good;
    broken[17] = bad;
    EXPECT_TRUE(std::isnan(Compare(*backend, good, broken).kl));
    EXPECT_FALSE(Compare(*backend, good, broken).nonfinite);
    EXPECT_TRUE(std::isnan(Compare(*backend, broken, good).kl));
    EXPECT_TRUE(Compare(*backend, broken, good).nonfinite);
  }
}

TEST_P(KlTest, ReadsTheLogitsBeforeSamplingOptionsAndLeavesTheDraw) {
  const auto backend = Make(1);
  const auto p = RandomFloats(100, 7);
  const auto q = RandomFloats(100, 8);
  const std::vector<TokenBias> bias = {{.token_id = 5, .bias = 50.0f}};
  SampleRow row;
  row.bias = bias;
  row.temperature = 0.25f;
  const SampleResult compared = Compare(*backend, p, q, row);
  EXPECT_EQ(compared.kl, Compare(*backend, p, q).kl);
  EXPECT_EQ(compared.token_id, 5u);
  SampleResult plain;
  const Activations x = Upload(*backend, p, 100);
  ASSERT_TRUE(backend->Sample(x, {&row, 1}, {&plain, 1}).ok());
  EXPECT_EQ(plain.token_id, compared.token_id);
  EXPECT_TRUE(std::isnan(plain.kl));
}

}  // namespace
}  // namespace llama_steer
