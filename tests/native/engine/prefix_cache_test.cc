#include "engine/prefix_cache.h"

#include <gtest/gtest.h>

namespace llama_steer {
namespace {

Digest KeyOf(uint8_t value) {
  Digest key{};
  key.fill(value);
  return key;
}

std::unique_ptr<BlockProof> ProofOf(uint8_t key, float ratio) {
  auto proof = std::make_unique<BlockProof>();
  proof->key = KeyOf(key);
  proof->tokens.push_back({.delta_ratio_sum = ratio, .layers_acted = 1});
  return proof;
}

const std::vector<uint32_t> kTokens = {1, 2};
const std::vector<uint32_t> kOtherTokens = {1, 3};

TEST(PrefixCache, FindsABlockByKeyAndTokens) {
  PrefixCache cache(2, 2, true);
  const int32_t block = cache.Allocate();
  cache.Insert(KeyOf(1), kTokens, block, nullptr);
  EXPECT_EQ(cache.Find(KeyOf(1), kTokens), block);
  EXPECT_EQ(cache.Find(KeyOf(2), kTokens), kNoBlock);
}

TEST(PrefixCache, DoesNotTrustAKeyWhoseTokensDiffer) {
  PrefixCache cache(2, 2, true);
  cache.Insert(KeyOf(1), kTokens, cache.Allocate(), nullptr);
  EXPECT_EQ(cache.Find(KeyOf(1), kOtherTokens), kNoBlock);
}

TEST(PrefixCache, KeepsAReleasedBlockUntilItsRoomIsNeeded) {
  PrefixCache cache(2, 2, true);
  const int32_t first = cache.Allocate();
  cache.Insert(KeyOf(1), kTokens, first, nullptr);
  cache.Release(first);
  EXPECT_EQ(cache.Find(KeyOf(1), kTokens), first);
  EXPECT_NE(cache.Allocate(), first);
  EXPECT_EQ(cache.Allocate(), first);
  EXPECT_EQ(cache.Find(KeyOf(1), kTokens), kNoBlock);
}

TEST(PrefixCache, EvictsTheEndOfAChainBeforeItsBeginning) {
  PrefixCache cache(2, 2, true);
  std::vector<int32_t> chain = {cache.Allocate(), cache.Allocate()};
  const int32_t last = chain[1];
  cache.Insert(KeyOf(1), kTokens, chain[0], nullptr);
  cache.Insert(KeyOf(2), kTokens, chain[1], nullptr);
  cache.ReleaseAll(chain);
  EXPECT_TRUE(chain.empty());
  EXPECT_EQ(cache.Allocate(), last);
}

TEST(PrefixCache, ASecondBlockOfTheSameContentIsNotKept) {
  PrefixCache cache(2, 2, true);
  const int32_t first = cache.Allocate();
  const int32_t second = cache.Allocate();
  cache.Insert(KeyOf(1), kTokens, first, nullptr);
  cache.Insert(KeyOf(1), kTokens, second, ProofOf(9, 0.5f));
  EXPECT_EQ(cache.Find(KeyOf(1), kTokens), first);
  ASSERT_NE(cache.FindProof(first, KeyOf(9)), nullptr);  // its proof is
  EXPECT_EQ(cache.FindProof(first, KeyOf(9))->tokens[0].delta_ratio_sum, 0.5f);
  cache.Release(second);
  EXPECT_EQ(cache.blocks().parked(), 0);
}

TEST(PrefixCache, BoundsTheProofsOfABlock) {
  PrefixCache cache(1, 2, true);
  const int32_t block = cache.Allocate();
  for (uint8_t key = 0; key <= PrefixCache::kMaxProofsPerBlock; ++key) {
    cache.Insert(KeyOf(1), kTokens, block, ProofOf(key, 1.0f));
  }
  EXPECT_EQ(cache.FindProof(block, KeyOf(0)), nullptr);
  EXPECT_NE(cache.FindProof(block, KeyOf(1)), nullptr);
}

TEST(PrefixCache, AnEvictedBlockForgetsItsProofs) {
  PrefixCache cache(1, 2, true);
  const int32_t block = cache.Allocate();
  cache.Insert(KeyOf(1), kTokens, block, ProofOf(9, 1.0f));
  cache.Release(block);
  EXPECT_EQ(cache.Allocate(), block);
  EXPECT_EQ(cache.FindProof(block, KeyOf(9)), nullptr);
}

TEST(PrefixCache, KeepsNothingWhenDisabled) {
  PrefixCache cache(1, 2, false);
  const int32_t block = cache.Allocate();
  cache.Insert(KeyOf(1), kTokens, block, nullptr);
  EXPECT_EQ(cache.Find(KeyOf(1), kTokens), kNoBlock);
  cache.Release(block);
  EXPECT_EQ(cache.blocks().parked(), 0);
  EXPECT_EQ(cache.blocks().available(), 1);
}

}  // namespace
}  // namespace llama_steer
