#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "backend/cpu/philox.h"
#include "kernels/support.h"

namespace llama_steer {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

constexpr float kInfinity = std::numeric_limits<float>::infinity();

using SampleTest = KernelTest;
INSTANTIATE_FOR_EVERY_TARGET(SampleTest);

SampleResult Sample(Backend& backend, const std::vector<float>& logits, const SampleRow& row) {
  SampleResult result;
  const Activations x = Upload(backend, logits, static_cast<int64_t>(logits.size()));
  EXPECT_TRUE(backend.Sample(x, {&row, 1}, {&result, 1}).ok());
  return result;
}

/// Draws once for each position in [0, draws) and counts the tokens.
std::map<uint32_t, uint32_t> Histogram(Backend& backend, const std::vector<float>& logits,
                                       const SampleRow& like, uint32_t draws) {
  std::vector<SampleRow> rows(draws, like);
  for (uint32_t i = 0; i < draws; ++i) rows[i].position = i;
  std::vector<SampleResult> results(draws);
  const Activations x = Upload(backend, logits, static_cast<int64_t>(logits.size()));
  EXPECT_TRUE(backend.Sample(x, rows, results).ok());
  std::map<uint32_t, uint32_t> counts;
  for (const SampleResult& result : results) ++counts[result.token_id];
  return counts;
}

/// The distribution after every filter, by sorting everything in float64. Hugging Face's order:
/// temperature, top-k, top-p, min-p.
std::vector<double> Distribution(const std::vector<float>& logits, const SampleRow& row) {
  std::vector<uint32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
  if (row.top_k > 0 && row.top_k < order.size()) order.resize(row.top_k);
  std::vector<double> weights;
  for (const uint32_t id : order) {
    weights.push_back(
        std::exp((static_cast<double>(logits[id]) - static_cast<double>(logits[order[0]])) /
                 static_cast<double>(row.temperature)));
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (row.top_p < 1.0f) {
    double mass = 0.0;
    size_t kept = 0;
    while (kept < weights.size() && mass < static_cast<double>(row.top_p) * total) {
      mass += weights[kept++];
    }
    weights.resize(std::max<size_t>(kept, 1));
  }
  while (weights.size() > 1 && weights.back() < static_cast<double>(row.min_p)) weights.pop_back();
  const double kept_total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<double> probabilities(logits.size(), 0.0);
  for (size_t i = 0; i < weights.size(); ++i) probabilities[order[i]] = weights[i] / kept_total;
  return probabilities;
}

/// Tokens of probability 0 never come; the rest pass a chi-square test.
void ExpectDistribution(const std::map<uint32_t, uint32_t>& counts,
                        const std::vector<double>& probabilities, uint32_t draws) {
  double chi_square = 0.0;
  double degrees = -1.0;
  double rare_expected = 0.0;
  double rare_seen = 0.0;
  for (uint32_t id = 0; id < probabilities.size(); ++id) {
    const auto at = counts.find(id);
    const double seen = at == counts.end() ? 0.0 : at->second;
    const double expected = probabilities[id] * draws;
    if (expected == 0.0) {
      EXPECT_EQ(seen, 0.0) << "token " << id << " was filtered out";
    } else if (expected < 10.0) {
      rare_expected += expected;
      rare_seen += seen;
    } else {
      chi_square += (seen - expected) * (seen - expected) / expected;
      degrees += 1.0;
    }
  }
  if (rare_expected > 0.0) {
    chi_square += (rare_seen - rare_expected) * (rare_seen - rare_expected) / rare_expected;
    degrees += 1.0;
  }
  // Mean plus five standard deviations; the draws are fixed, so this cannot be flaky.
  EXPECT_LE(chi_square, degrees + 5.0 * std::sqrt(2.0 * std::max(degrees, 1.0)));
}

TEST(PhiloxTest, GivesThePublishedNumbers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffffffffffff),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST_P(SampleTest, GreedyTakesTheLargestAndTheLowestIdOfATie) {
  const auto backend = Make(1);
  for (const size_t size : {1u, 5u, 16u, 100u, 1000u}) {
    auto logits = RandomFloats(size, 1);
    SampleRow row;
    row.temperature = 0.0f;
    const auto largest = std::max_element(logits.begin(), logits.end());
    EXPECT_EQ(Sample(*backend, logits, row).token_id, largest - logits.begin());
    logits[size / 3] = logits[size - 1] = 10.0f;
    EXPECT_EQ(Sample(*backend, logits, row).token_id, size / 3);
  }
}

TEST_P(SampleTest, DrawsFollowTheDistributionOfEveryCombinationOfFilters) {
  const auto backend = Make(2);
  constexpr uint32_t kDraws = kOnCuda ? 60 : kSanitized ? 300 : 3000;
  auto logits = RandomFloats(700, 2, 2.0f);
  logits[17] = logits[600] = logits[3];  // ties
  logits[5] = -kInfinity;
  SampleRow row;
  row.seed = 0x1234567890abcdef;
  for (const float temperature : {1.0f, 2.5f}) {
    for (const uint32_t top_k : {0u, 7u, 300u, 5000u}) {
      for (const float top_p : {1.0f, 0.9f, 0.3f, 0.0f}) {
        for (const float min_p : {0.0f, 0.05f}) {
          row.temperature = temperature;
          row.top_k = top_k;
          row.top_p = top_p;
          row.min_p = min_p;
          SCOPED_TRACE(testing::Message() << "temperature " << temperature << " top_k " << top_k
                                          << " top_p " << top_p << " min_p " << min_p);
          ExpectDistribution(Histogram(*backend, logits, row, kDraws), Distribution(logits, row),
                             kDraws);
        }
      }
    }
  }
}

TEST_P(SampleTest, ALargeVocabularyIsFilteredAsASmallOne) {
  const auto backend = Make(2);
  const auto logits = RandomFloats(128256, 3, 3.0f);
  SampleRow row;
  for (const auto& [top_k, top_p] : {std::pair{0u, 0.95f}, {50u, 1.0f}, {600u, 0.8f}, {0u, 1.0f}}) {
    row.top_k = top_k;
    row.top_p = top_p;
    SCOPED_TRACE(testing::Message() << "top_k " << top_k << " top_p " << top_p);
    constexpr uint32_t kDraws = kOnCuda ? 20 : 200;
    ExpectDistribution(Histogram(*backend, logits, row, kDraws), Distribution(logits, row), kDraws);
  }
}

TEST_P(SampleTest, ADrawDependsOnItsKeyOnly) {
  const auto logits = RandomFloats(5000, 4);
  std::vector<SampleRow> rows(24);
  for (uint32_t i = 0; i < rows.size(); ++i) {
    rows[i].seed = i % 2;
    rows[i].completion = i / 2 % 3;
    rows[i].position = i / 6;
    rows[i].top_p = i % 3 == 0 ? 0.9f : 1.0f;
  }
  std::vector<uint32_t> alone;
  const auto single = Make(1);
  for (const SampleRow& row : rows) alone.push_back(Sample(*single, logits, row).token_id);
  const std::set<uint32_t> distinct(alone.begin(), alone.end());
  EXPECT_GT(distinct.size(), 12u) << "keys that differ draw differently";
  for (const int32_t threads : {1, 2, 3}) {
    const auto backend = Make(threads);
    std::vector<SampleResult> results(rows.size());
    ASSERT_TRUE(backend->Sample(Upload(*backend, logits, 5000), rows, results).ok());
    for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(results[i].token_id, alone[i]);
  }
}

TEST_P(SampleTest, BiasAndPenaltiesChangeTheChoiceInTheirOrder) {
  const auto backend = Make(1);
  const std::vector<float> logits = {1.0f, 4.0f, 3.0f, -2.0f, 2.0f};
  const auto greedy = [&](const SampleRow& like) {
    SampleRow row = like;
    row.temperature = 0.0f;
    return Sample(*backend, logits, row).token_id;
  };
  SampleRow row;
  EXPECT_EQ(greedy(row), 1u);
  const std::vector<TokenBias> bias = {{1, -100.0f}, {4, 1.5f}};
  row.bias = bias;
  EXPECT_EQ(greedy(row), 4u);

  SampleRow repetition;
  const std::vector<SeenToken> in_prompt = {{1, 0}};
  repetition.seen = in_prompt;
  repetition.presence_penalty = 50.0f;  // the token was never generated: no effect
  EXPECT_EQ(greedy(repetition), 1u);
  repetition.repetition_penalty = 1.5f;  // 4 / 1.5 < 3
  EXPECT_EQ(greedy(repetition), 2u);

  SampleRow penalties;
  const std::vector<SeenToken> generated = {{1, 3}, {2, 1}};
  penalties.seen = generated;
  penalties.frequency_penalty = 0.4f;  // 4 - 1.2 = 2.8 and 3 - 0.4 = 2.6
  EXPECT_EQ(greedy(penalties), 1u);
  penalties.frequency_penalty = 0.75f;  // 1.75 and 2.25
  EXPECT_EQ(greedy(penalties), 2u);
  penalties.presence_penalty = 0.5f;  // 1.25 and 1.75: token 4 at 2
  EXPECT_EQ(greedy(penalties), 4u);

  // The bias comes first: 4 - 5 = -1 is negative when the repetition penalty multiplies it.
  const std::vector<float> two = {-1.5f, 4.0f};
  SampleRow order;
  const std::vector<TokenBias> lowered = {{1, -5.0f}};
  order.bias = lowered;
  order.temperature = 0.0f;
  EXPECT_EQ(Sample(*backend, two, order).token_id, 1u);
  order.seen = in_prompt;
  order.repetition_penalty = 2.0f;
  EXPECT_EQ(Sample(*backend, two, order).token_id, 0u);
}

TEST_P(SampleTest, LogprobsAreOfTheUnmodifiedLogits) {
  const auto backend = Make(1);
  for (const size_t size : {3u, 50u, 1003u, 128256u}) {
    for (const float scale : {0.01f, 3.0f, 1e4f}) {
      auto logits = RandomFloats(size, 5, scale);
      if (size > 3) logits[2] = -kInfinity;
      double largest = -1e300;
      for (const float logit : logits) largest = std::max(largest, static_cast<double>(logit));
      double sum = 0.0;
      for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
      const auto exact = [&](uint32_t id) {
        return static_cast<double>(logits[id]) - largest - std::log(sum);
      };
      SampleRow row;
      row.temperature = 0.3f;
      row.top_k = 3;
      const std::vector<TokenBias> bias = {{1, 2.0f}};
      row.bias = bias;
      row.logprob = true;
      row.top_logprobs = 20;
      const SampleResult result = Sample(*backend, logits, row);
      EXPECT_NEAR(result.logprob, exact(result.token_id),
                  2e-6 + 1e-6 * std::fabs(exact(result.token_id)));
      ASSERT_EQ(result.top.size(), std::min<size_t>(20, size));
      std::vector<uint32_t> order(size);
      std::iota(order.begin(), order.end(), 0u);
      std::stable_sort(order.begin(), order.end(),
                       [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
      for (size_t i = 0; i < result.top.size(); ++i) {
        EXPECT_EQ(result.top[i].token_id, order[i]);
        const double expected = exact(order[i]);
        EXPECT_NEAR(result.top[i].logprob, expected, 2e-6 + 1e-6 * std::fabs(expected));
      }
    }
  }
}

TEST_P(SampleTest, AForcedTokenIsScoredAndNothingIsDrawn) {
  const auto backend = Make(1);
  const std::vector<float> logits = {0.0f, 0.0f, -kInfinity, 0.0f};
  SampleRow row;
  row.logprob = true;
  row.forced_token = 3;
  SampleResult result = Sample(*backend, logits, row);
  EXPECT_EQ(result.token_id, 3u);
  EXPECT_NEAR(result.logprob, -std::log(3.0), 1e-6);
  row.forced_token = 2;
  result = Sample(*backend, logits, row);
  EXPECT_EQ(result.token_id, 2u);
  EXPECT_EQ(result.logprob, -kInfinity);
}

TEST_P(SampleTest, BrokenLogitsAreReportedWhereverTheyStand) {
  const auto backend = Make(1);
  for (const float bad : {std::nanf(""), kInfinity}) {
    for (const size_t at : {0u, 1u, 30u, 37u, 99u}) {
      auto logits = RandomFloats(100, 6);
      logits[at] = bad;
      for (const float temperature : {0.0f, 1.0f}) {
        SampleRow row;
        row.temperature = temperature;
        EXPECT_TRUE(Sample(*backend, logits, row).nonfinite) << bad << " at " << at;
      }
    }
  }
  SampleRow row;
  EXPECT_TRUE(Sample(*backend, std::vector<float>(40, -kInfinity), row).nonfinite);
  EXPECT_FALSE(Sample(*backend, RandomFloats(100, 6), row).nonfinite);
}

TEST_P(SampleTest, BanningEveryTokenIsReportedToo) {
  const auto backend = Make(1);
  const std::vector<float> logits = {1.0f, 2.0f};
  const std::vector<TokenBias> bias = {{0, -kInfinity}, {1, -kInfinity}};
  for (const float temperature : {0.0f, 1.0f}) {
    SampleRow row;
    row.temperature = temperature;
    row.bias = bias;
    EXPECT_TRUE(Sample(*backend, logits, row).nonfinite);
    row.bias = std::span(bias).first(1);
    EXPECT_EQ(Sample(*backend, logits, row).token_id, 1u);
  }
}

TEST_P(SampleTest, AVanishingTemperatureIsGreedy) {
  const auto backend = Make(1);
  const auto logits = RandomFloats(300, 7);
  SampleRow row;
  row.temperature = 0.0f;
  const uint32_t greedy = Sample(*backend, logits, row).token_id;
  for (const float temperature : {1e-6f, 1e-38f, 1e-45f}) {
    row.temperature = temperature;
    for (const float top_p : {1.0f, 0.9f}) {
      row.top_p = top_p;
      EXPECT_EQ(Sample(*backend, logits, row).token_id, greedy);
    }
  }
}

}  // namespace
}  // namespace llama_steer
