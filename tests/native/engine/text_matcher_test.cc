#include "engine/text_matcher.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

/// Position of the token that completes the text for the first time, by searching everything.
int32_t Searched(const std::vector<std::string>& tokens, const std::string& text) {
  std::string all;
  for (size_t i = 0; i < tokens.size(); ++i) {
    all += tokens[i];
    if (all.find(text) != std::string::npos) return static_cast<int32_t>(i);
  }
  return -1;
}

int32_t Matched(const std::vector<std::string>& tokens, const std::string& text) {
  const TextPattern pattern(Bytes(text));
  TextProgress progress;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::vector<uint8_t> bytes = Bytes(tokens[i]);
    const bool completed = progress.Read(pattern, bytes, static_cast<int32_t>(i));
    EXPECT_EQ(completed, progress.completed_at == static_cast<int32_t>(i));
  }
  return progress.completed_at;
}

TEST(TextMatcher, FindsTextsWithinAndAcrossTokens) {
  EXPECT_EQ(Matched({"Hello", " wor", "ld"}, "ell"), 0);
  EXPECT_EQ(Matched({"Hello", " wor", "ld"}, "o w"), 1);
  EXPECT_EQ(Matched({"Hello", " wor", "ld"}, "Hello world"), 2);
  EXPECT_EQ(Matched({"</scr", "atch", "pad>"}, "</scratchpad>"), 2);
  EXPECT_EQ(Matched({"Hello", "", " world"}, "worlds"), -1);
  EXPECT_EQ(Matched({}, "a"), -1);
}

TEST(TextMatcher, FallsBackToTheLongestBeginningThatStillFits) {
  EXPECT_EQ(Matched({"aab", "aab", "aac"}, "aabaac"), 2);
  EXPECT_EQ(Matched({"ab", "ab", "ab", "c"}, "ababc"), 3);
  EXPECT_EQ(Matched({"aaa", "aaab"}, "aaaab"), 1);
}

TEST(TextMatcher, KeepsTheFirstMatch) { EXPECT_EQ(Matched({"ab", "ab"}, "ab"), 0); }

TEST(TextMatcher, MatchesBytesOfACharacterThatIsSpreadOverTokens) {
  EXPECT_EQ(Matched({"\xf0\x9f", "\x98", "\x80"}, "\xf0\x9f\x98\x80"), 2);
}

TEST(TextMatcher, AgreesWithSearchingOnRandomTokens) {
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) {
    const auto some = [&](uint32_t most) {
      std::string text;
      for (uint32_t i = random() % (most + 1); i > 0; --i) {
        text += static_cast<char>('a' + random() % 2);
      }
      return text;
    };
    std::vector<std::string> tokens;
    for (int i = 0; i < 20; ++i) tokens.push_back(some(3));
    std::string text(1, 'b');
    text += some(6);
    EXPECT_EQ(Matched(tokens, text), Searched(tokens, text)) << text;
  }
}

}  // namespace
}  // namespace llama_steer
