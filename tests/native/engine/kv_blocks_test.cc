#include "engine/kv_blocks.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>

namespace llama_steer {
namespace {

TEST(KvBlocks, GivesEveryBlockOnceAndThenNone) {
  KvBlocks blocks(3);
  EXPECT_EQ(blocks.Take().block, 0);
  EXPECT_EQ(blocks.Take().block, 1);
  EXPECT_EQ(blocks.Take().block, 2);
  EXPECT_EQ(blocks.Take().block, kNoBlock);
  EXPECT_EQ(blocks.used(), 3);
}

TEST(KvBlocks, KeepsABlockUntilItsLastReferenceIsGone) {
  KvBlocks blocks(1);
  const int32_t block = blocks.Take().block;
  blocks.Retain(block);
  blocks.Release(block, false);
  EXPECT_EQ(blocks.available(), 0);
  blocks.Release(block, false);
  EXPECT_EQ(blocks.available(), 1);
}

TEST(KvBlocks, TakesFreeBlocksBeforeParkedOnesAndTheOldestOfThese) {
  KvBlocks blocks(3);
  for (int i = 0; i < 3; ++i) (void)blocks.Take();
  blocks.Release(1, true);
  blocks.Release(0, true);
  blocks.Release(2, false);
  EXPECT_EQ(blocks.Take().block, 2);
  const KvBlocks::Taken evicted = blocks.Take();
  EXPECT_EQ(evicted.block, 1);
  EXPECT_TRUE(evicted.was_parked);
  EXPECT_EQ(blocks.Take().block, 0);
}

TEST(KvBlocks, ARetainedParkedBlockIsNotTaken) {
  KvBlocks blocks(2);
  (void)blocks.Take();
  (void)blocks.Take();
  blocks.Release(0, true);
  blocks.Release(1, true);
  blocks.Retain(0);
  EXPECT_EQ(blocks.parked(), 1);
  EXPECT_EQ(blocks.Take().block, 1);
  EXPECT_EQ(blocks.Take().block, kNoBlock);
}

// A plain model: counts a block, a queue of parked ones.
TEST(KvBlocks, AgreesWithAPlainModelUnderRandomUse) {
  std::mt19937 random(1);
  KvBlocks blocks(8);
  std::map<int32_t, int32_t> held;
  std::deque<int32_t> parked;
  for (int step = 0; step < 20000; ++step) {
    const auto any = [&random](const auto& from) {
      return *std::next(from.begin(), static_cast<ptrdiff_t>(random() % from.size()));
    };
    const auto choice = random() % 4;
    if (choice == 0) {
      const bool was_free = held.size() + parked.size() < 8;
      const KvBlocks::Taken taken = blocks.Take();
      if (was_free) {
        ASSERT_FALSE(taken.was_parked);
        ASSERT_FALSE(held.contains(taken.block));
      } else if (!parked.empty()) {
        ASSERT_EQ(taken.block, parked.front());
        ASSERT_TRUE(taken.was_parked);
        parked.pop_front();
      } else {
        ASSERT_EQ(taken.block, kNoBlock);
        continue;
      }
      held[taken.block] = 1;
    } else if (choice == 1 && !held.empty()) {
      const int32_t block = any(held).first;
      blocks.Retain(block);
      ++held[block];
    } else if (choice == 2 && !held.empty()) {
      const int32_t block = any(held).first;
      const bool keep = random() % 2 == 0;
      blocks.Release(block, keep);
      if (--held[block] == 0) {
        held.erase(block);
        if (keep) parked.push_back(block);
      }
    } else if (choice == 3 && !parked.empty()) {
      const int32_t block = any(parked);
      blocks.Retain(block);
      std::erase(parked, block);
      held[block] = 1;
    }
    ASSERT_EQ(blocks.used(), static_cast<int32_t>(held.size()));
    ASSERT_EQ(blocks.parked(), static_cast<int32_t>(parked.size()));
    for (const auto& [block, references] : held) ASSERT_EQ(blocks.references(block), references);
  }
}

}  // namespace
}  // namespace llama_steer
