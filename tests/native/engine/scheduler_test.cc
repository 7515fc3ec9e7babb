// The scheduler alone: state in, plan out.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "engine/core_harness.h"
#include "engine/demand.h"

namespace llama_steer {
namespace {

constexpr int32_t kBlockTokens = 4;

/// Requests whose tokens are all alike, and a scheduler that is told that plans were carried out.
class Bench {
 public:
  explicit Bench(int32_t blocks, StepLimits limits = {}, bool prefix_cache = false)
      : cache_(blocks, kBlockTokens, prefix_cache), scheduler_(Filled(limits), cache_, keys_) {}

  Sequence& Add(int32_t prompt, int64_t credits = 100) {
    auto request = std::make_unique<RequestState>();
    request->spec = TestRequest(requests_.size(), prompt, 50);
    request->credits = credits;
    request->completions.resize(1);
    auto sequence = std::make_unique<Sequence>();
    sequence->request = request.get();
    sequences_.push_back(sequence.get());
    request->sequences.push_back(std::move(sequence));
    requests_.push_back(std::move(request));
    return *sequences_.back();
  }

  StepPlan Plan() { return scheduler_.Plan(sequences_); }

  /// Plans and acts as if the model had run.
  StepPlan Step() {
    StepPlan plan = Plan();
    for (const ScheduledRows& item : plan.items) {
      item.sequence->computed += item.rows;
      if (item.draws == 0) continue;
      item.sequence->completion = 0;
      item.sequence->generated.push_back(9);
      --item.sequence->request->credits;
    }
    return plan;
  }

  int32_t RowsOf(const StepPlan& plan, const Sequence& sequence) const {
    for (const ScheduledRows& item : plan.items) {
      if (item.sequence == &sequence) return item.rows;
    }
    return 0;
  }

  PrefixCache& cache() { return cache_; }

 private:
  static StepLimits Filled(StepLimits limits) {
    if (limits.max_rows == 0) limits.max_rows = 16;
    if (limits.max_logit_rows == 0) limits.max_logit_rows = 100;
    if (limits.max_running == 0) limits.max_running = 100;
    if (limits.max_capture_rows == 0) limits.max_capture_rows = 100;
    return limits;
  }

  PrefixCache cache_;
  BlockKeys keys_{kBlockTokens, kTestLayers - 1};
  Scheduler scheduler_;
  std::vector<std::unique_ptr<RequestState>> requests_;
  std::vector<Sequence*> sequences_;
};

TEST(Scheduler, DecodesComeFirstAndPrefillsFillTheRest) {
  Bench bench(100);
  Sequence& a = bench.Add(4);
  Sequence& b = bench.Add(5);
  bench.Step();
  Sequence& c = bench.Add(40);
  const StepPlan plan = bench.Step();
  EXPECT_EQ(bench.RowsOf(plan, a), 1);
  EXPECT_EQ(bench.RowsOf(plan, b), 1);
  EXPECT_EQ(bench.RowsOf(plan, c), 14);
  EXPECT_EQ(plan.rows, 16);
  EXPECT_EQ(plan.logit_rows, 2);  // the prompt is not at its end
}

TEST(Scheduler, AnUnfinishedPrefillComesBeforeANewOne) {
  Bench bench(100);
  Sequence& a = bench.Add(20);
  Sequence& b = bench.Add(20);
  EXPECT_EQ(bench.RowsOf(bench.Step(), a), 16);
  const StepPlan plan = bench.Step();
  EXPECT_EQ(bench.RowsOf(plan, a), 4);
  EXPECT_EQ(bench.RowsOf(plan, b), 12);
}

TEST(Scheduler, NothingOvertakesTheFirstThatDoesNotFit) {
  Bench bench(10, {.max_rows = 64});
  bench.Add(20);
  Sequence& large = bench.Add(30);
  Sequence& small = bench.Add(4);
  const StepPlan plan = bench.Step();
  EXPECT_EQ(bench.RowsOf(plan, large), 0);
  EXPECT_EQ(bench.RowsOf(plan, small), 0);
}

TEST(Scheduler, ARequestWithoutCreditsHoldsUpNobody) {
  Bench bench(10, {.max_rows = 64});
  Sequence& unread = bench.Add(8, 0);
  Sequence& next = bench.Add(8);
  const StepPlan plan = bench.Step();
  EXPECT_EQ(bench.RowsOf(plan, unread), 0);
  EXPECT_EQ(bench.RowsOf(plan, next), 8);
}

TEST(Scheduler, PreemptsTheYoungestFirst) {
  Bench bench(6, {.max_rows = 64});
  Sequence& oldest = bench.Add(8);
  Sequence& youngest = bench.Add(8);
  bench.Step();
  ASSERT_TRUE(youngest.resident);
  int32_t preemptions = 0;
  for (int i = 0; i < 12 && preemptions == 0; ++i) preemptions += bench.Step().preemptions;
  EXPECT_EQ(preemptions, 1);
  EXPECT_TRUE(oldest.resident);
  EXPECT_FALSE(youngest.resident);
  EXPECT_EQ(youngest.computed, 0);
}

TEST(Scheduler, PreemptsAnUnreadStreamBeforeAYoungerOneThatIsRead) {
  Bench bench(7, {.max_rows = 64});
  Sequence& unread = bench.Add(8, 1);
  Sequence& read = bench.Add(8);
  Sequence& youngest = bench.Add(4);
  bench.Step();
  ASSERT_TRUE(unread.resident && read.resident && youngest.resident);
  for (int i = 0; i < 12 && unread.resident; ++i) bench.Step();
  EXPECT_FALSE(unread.resident);
  EXPECT_TRUE(read.resident);
  EXPECT_TRUE(youngest.resident);
}

TEST(Scheduler, HonoursTheNumberOfRunningSequences) {
  Bench bench(100, {.max_rows = 64, .max_running = 2});
  bench.Add(4);
  bench.Add(4);
  Sequence& third = bench.Add(4);
  EXPECT_EQ(bench.Step().items.size(), 2u);
  EXPECT_FALSE(third.resident);
}

TEST(Scheduler, CutsAChunkAtTheRowsThatCanBeScored) {
  Bench bench(100, {.max_rows = 64, .max_logit_rows = 10});
  Sequence& sequence = bench.Add(40);
  sequence.request->to_score = {19, 39};
  EXPECT_EQ(bench.RowsOf(bench.Plan(), sequence), 29);  // 19 rows before and ten scored ones
  sequence.request->to_score.begin = 29;
  sequence.computed = 29;
  // All ten rows that are left can be scored, but then no row is free to draw the first token.
  EXPECT_EQ(bench.RowsOf(bench.Plan(), sequence), 10);
  EXPECT_EQ(bench.Plan().items[0].draws, 0);
}

TEST(Scheduler, CutsAChunkAtTheStagingArea) {
  Bench bench(100, {.max_rows = 64, .max_capture_rows = 10});
  Sequence& sequence = bench.Add(40);
  CaptureState capture;
  capture.device_sites = {1, 2, 3};
  capture.todo = {5, 40};
  sequence.request->capture = capture;
  const StepPlan plan = bench.Plan();
  EXPECT_EQ(bench.RowsOf(plan, sequence), 8);  // five plain tokens and three captured ones
  EXPECT_EQ(plan.capture_rows, 9);
}

TEST(Scheduler, AlwaysFindsWorkForTheOldestWithCredits) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    Bench bench(16, {.max_rows = 1 + static_cast<int32_t>(random() % 20)}, round % 2 == 0);
    std::vector<Sequence*> added;
    for (int step = 0; step < 60; ++step) {
      if (random() % 3 == 0 && added.size() < 8) {
        added.push_back(&bench.Add(1 + static_cast<int32_t>(random() % 20), random() % 3));
      }
      for (Sequence* sequence : added) {
        const bool room = sequence->context() < 16 * kBlockTokens;
        if (room && random() % 4 == 0) sequence->request->credits += random() % 3;
        if (!room) sequence->request->credits = 0;
      }
      const bool runnable = std::ranges::any_of(
          added, [](const Sequence* sequence) { return sequence->request->credits > 0; });
      const StepPlan plan = bench.Step();
      if (runnable && plan.items.empty()) {
        // Preempting may take one step; the next has to run something.
        ASSERT_GT(plan.preemptions, 0);
        ASSERT_FALSE(bench.Step().items.empty());
      }
      int32_t held = 0;
      for (const Sequence* sequence : added) held += static_cast<int32_t>(sequence->blocks.size());
      ASSERT_EQ(bench.cache().blocks().used(), held);  // nothing is shared here
    }
  }
}

TEST(Scheduler, TakesNoMoreFromTheCacheThanMayBeReused) {
  RequestState request;
  request.spec = TestRequest(1, 40, 4);
  Sequence sequence;
  sequence.request = &request;
  EXPECT_EQ(ReusableEnd(sequence), 39);
  request.to_score = {20, 39};
  EXPECT_EQ(ReusableEnd(sequence), 20);
  request.capture = CaptureState{};
  request.capture->todo = {10, 12};
  EXPECT_EQ(ReusableEnd(sequence), 10);
  request.capture->todo = {12, 12};  // all captured before a preemption
  EXPECT_EQ(ReusableEnd(sequence), 20);
}

}  // namespace
}  // namespace llama_steer
