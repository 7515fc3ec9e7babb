#include "binding/outbox.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <variant>
#include <vector>

namespace llama_steer {
namespace {

TokenEvent Token(RequestId id, uint32_t token_id) {
  TokenEvent event;
  event.id = id;
  event.token.token_id = token_id;
  return event;
}

TEST(Outbox, WakesOnceForEachBatch) {
  int wakes = 0;
  Outbox outbox([&] { ++wakes; });
  outbox.Push(Token(1, 1));
  outbox.Push(Token(1, 2));
  EXPECT_EQ(wakes, 1);
  EXPECT_EQ(outbox.TakeAll().size(), 2u);
  EXPECT_TRUE(outbox.TakeAll().empty());
  outbox.Push(Token(1, 3));
  EXPECT_EQ(wakes, 2);
}

TEST(Outbox, KeepsTheNewestProgressOnly) {
  Outbox outbox([] {});
  outbox.Push(LoadProgressEvent{1, 10});
  outbox.Push(LoadProgressEvent{2, 10});
  outbox.Push(ReadyEvent{});
  outbox.Push(LoadProgressEvent{3, 10});
  const std::vector<EngineEvent> events = outbox.TakeAll();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(std::get<LoadProgressEvent>(events[0]).done_bytes, 2u);
  EXPECT_TRUE(std::holds_alternative<ReadyEvent>(events[1]));
}

TEST(Outbox, DropsEverythingOnceClosed) {
  int wakes = 0;
  Outbox outbox([&] { ++wakes; });
  outbox.Push(Token(1, 1));
  outbox.Close();
  outbox.Push(Token(1, 2));
  EXPECT_TRUE(outbox.TakeAll().empty());
  EXPECT_EQ(wakes, 1);
}

/// Two threads push, one takes whenever it is woken: nothing is lost, the order of each is kept.
TEST(Outbox, LosesNothingBetweenThreads) {
  constexpr uint32_t kEvents = 20000;
  std::atomic<int> wakes = 0;
  Outbox outbox([&] { wakes.fetch_add(1); });
  const auto push = [&](RequestId id) {
    for (uint32_t i = 0; i < kEvents; ++i) outbox.Push(Token(id, i));
  };
  std::thread first(push, 0);
  std::thread second(push, 1);

  uint32_t next[2] = {0, 0};
  int answered = 0;
  while (next[0] + next[1] < 2 * kEvents) {
    if (wakes.load() == answered) {
      std::this_thread::yield();
      continue;
    }
    ++answered;
    for (const EngineEvent& event : outbox.TakeAll()) {
      const auto& token = std::get<TokenEvent>(event);
      ASSERT_EQ(token.token.token_id, next[token.id]++);
    }
  }
  first.join();
  second.join();
  EXPECT_EQ(wakes.load(), answered);
}

}  // namespace
}  // namespace llama_steer
