// Random traffic: whatever arrives, is cancelled, waits for credits or is preempted, every request
// says what it says alone, ends once, and leaves nothing behind.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "engine/core_harness.h"
#include "engine/random_requests.h"

namespace llama_steer {
namespace {

struct Traffic {
  int32_t blocks = 64;
  int32_t chunk = 64;
  int32_t running = 16;
  bool prefix_cache = true;
  bool credits = false;  // few, of both kinds, granted at random
  bool cancels = false;
  uint64_t staging_rows = 1000;
  bool plain = false;  // most requests ask for nothing that holds a step up
  std::optional<Pace> ahead{};
};

EngineOptions OptionsFor(const Traffic& traffic) {
  EngineOptions options = TestOptions();
  options.max_batch_tokens = traffic.chunk;
  options.max_running_sequences = traffic.running;
  options.prefix_cache = traffic.prefix_cache;
  options.capture_staging_bytes = traffic.staging_rows * 8 * sizeof(float);
  return options;
}

RequestRecord Alone(EngineRequest request) {
  EngineOptions options = OptionsFor({.chunk = 4096, .prefix_cache = false});
  CoreHarness harness(options, 512);
  request.credits = 1 << 20;
  request.capture_credit_bytes = uint64_t{1} << 40;
  return harness.Run(request);
}

/// Rows of all five sites of all layers, float32, each with three tokens of the lens.
constexpr uint64_t kMostTokenBytes =
    5 * kTestLayers * (8 * sizeof(float) + 3 * static_cast<uint64_t>(kLensEntryBytes));

class RandomTraffic {
 public:
  RandomTraffic(const Traffic& traffic, uint32_t seed)
      : traffic_(traffic), random_(seed), held_(Harness(traffic)), harness_(*held_) {}

  void Run(RequestId requests) {
    for (RequestId id = 1; id <= requests; ++id) {
      Arrive(id);
      for (uint32_t i = random_() % 6; i > 0; --i) Tick();
    }
    for (int i = 0; i < 100000 && !AllDone(); ++i) Tick();
    harness_.ExpectIdle();
    EXPECT_EQ(harness_.fake().vector_rows(), kTestVectors * kTestLayers);
    EXPECT_EQ(harness_.fake().adapters(), kTestAdapters);
    uint64_t tokens = 0;
    for (const auto& [id, record] : harness_.transcript().records()) tokens += record.token_events;
    EXPECT_EQ(stats().generated_tokens, tokens);
    Compare();
  }

  CoreHarness& harness() { return harness_; }
  uint64_t preemptions() const { return stats().preemptions; }
  EngineStats stats() const { return harness_.Stats(); }
  /// A request and its shadow: two rows a step, and twice the blocks of the longest one.
  bool compares() const {
    return traffic_.blocks >= 12 && traffic_.chunk >= 2 && traffic_.running >= 2;
  }
  /// Tokens that a steering made another than the unsteered model's.
  int64_t compared() const {
    int64_t tokens = 0;
    for (const auto& [id, record] : harness_.transcript().records()) {
      for (const auto& [completion, values] : record.kl) {
        tokens += std::ranges::count_if(values, [](const auto& kl) { return kl.value_or(0) > 0; });
      }
    }
    return tokens;
  }

 private:
  static std::unique_ptr<CoreHarness> Harness(const Traffic& traffic) {
    const EngineOptions options = OptionsFor(traffic);
    if (!traffic.ahead) return std::make_unique<CoreHarness>(options, traffic.blocks);
    return std::make_unique<CoreHarness>(options, traffic.blocks, *traffic.ahead);
  }

  void Arrive(RequestId id) {
    RandomRequestLimits limits;
    limits.plain = traffic_.plain && id % 8 != 0;
    limits.max_completions = static_cast<uint32_t>(std::min(traffic_.running, 4));
    limits.compare = compares();
    EngineRequest request = RandomRequest(id, TestOptions().config, limits, random_);
    requests_[id] = request;
    if (traffic_.credits) {
      request.credits = random_() % 4;
      request.capture_credit_bytes = kMostTokenBytes;
    }
    granted_[id] = request.credits;
    granted_bytes_[id] = request.capture_credit_bytes;
    harness_.Submit(request);
  }

  void Tick() {
    harness_.Step();
    if (!traffic_.credits && !traffic_.cancels) return;
    const RequestId id = 1 + random_() % requests_.size();
    if (traffic_.credits) {
      const uint32_t credits = 1 + random_() % 5;
      const uint32_t bytes = random_() % (2 * kMostTokenBytes);
      harness_.core().Grant(id, credits, bytes);
      granted_[id] += credits;
      granted_bytes_[id] += bytes;
    }
    if (traffic_.cancels && random_() % 24 == 0) {
      harness_.core().Cancel(id, static_cast<int32_t>(random_() % 5) - 1);
      cancelled_[id] = true;
    }
    for (const auto& [request_id, record] : harness_.transcript().records()) {
      ASSERT_LE(record.capture_bytes(), granted_bytes_[request_id]);
      // A token never overdraws; the activations of one step may.
      if (requests_[request_id].capture) continue;
      ASSERT_LE(record.token_events, granted_[request_id]);
    }
  }

  bool AllDone() {
    for (const auto& [id, request] : requests_) {
      if (!harness_.transcript().of(id).done) return false;
    }
    return true;
  }

  void Compare() {
    for (const auto& [id, request] : requests_) {
      const RequestRecord alone = Alone(request);
      const RequestRecord& record = harness_.transcript().of(id);
      EXPECT_EQ(cancelled_[id] ? DifferenceOfBeginning(record, alone) : Difference(record, alone),
                "")
          << "request " << id;
    }
  }

  Traffic traffic_;
  std::mt19937 random_;
  std::unique_ptr<CoreHarness> held_;
  CoreHarness& harness_;
  std::map<RequestId, EngineRequest> requests_;
  std::map<RequestId, int64_t> granted_;
  std::map<RequestId, uint64_t> granted_bytes_;
  std::map<RequestId, bool> cancelled_;
};

uint64_t RunTraffic(const Traffic& traffic, uint32_t seeds) {
  uint64_t preemptions = 0;
  uint64_t evaluations = 0;
  uint64_t fired = 0;
  int64_t compared = 0;
  bool compares = false;
  uint64_t steps_ahead = 0;
  for (uint32_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomTraffic run(traffic, seed);
    run.Run(25);
    preemptions += run.preemptions();
    evaluations += run.stats().gate_evaluations;
    fired += run.stats().gate_fired;
    compared += run.compared();
    compares = run.compares();
    if (traffic.ahead) steps_ahead += run.harness().ahead().steps_ahead();
  }
  EXPECT_EQ(steps_ahead > 20, traffic.ahead.has_value());
  // The options are at work, and not all in one way.
  EXPECT_GT(fired, 0u);
  EXPECT_LT(fired, evaluations);
  EXPECT_EQ(compared > 0, compares);
  return preemptions;
}

TEST(CoreProperty, ABatchSaysWhatEachRequestSaysAlone) { RunTraffic({.blocks = 256}, 10); }

TEST(CoreProperty, ChunksChangeNothing) {
  for (const int32_t chunk : {1, 2, 7, 64}) RunTraffic({.blocks = 256, .chunk = chunk}, 4);
}

TEST(CoreProperty, PreemptionChangesNothing) {
  for (const bool prefix_cache : {true, false}) {
    EXPECT_GT(RunTraffic({.blocks = 8, .prefix_cache = prefix_cache}, 10), 0u);
    EXPECT_GT(RunTraffic({.blocks = 13, .prefix_cache = prefix_cache}, 10), 0u);
    EXPECT_GT(RunTraffic({.blocks = 13, .chunk = 6, .prefix_cache = prefix_cache}, 10), 0u);
  }
}

TEST(CoreProperty, AnEvictingPrefixCacheChangesNothing) {
  RunTraffic({.blocks = 20, .chunk = 32, .running = 4}, 10);
}

TEST(CoreProperty, FewCreditsChangeNothing) {
  for (const bool prefix_cache : {true, false}) {
    RunTraffic({.blocks = 64, .prefix_cache = prefix_cache, .credits = true}, 6);
    RunTraffic({.blocks = 8, .prefix_cache = prefix_cache, .credits = true}, 6);
    RunTraffic({.blocks = 14, .prefix_cache = prefix_cache, .credits = true}, 6);
  }
}

TEST(CoreProperty, CancelsLeaveTheOthersAlone) {
  for (const bool prefix_cache : {true, false}) {
    RunTraffic({.blocks = 12, .prefix_cache = prefix_cache, .cancels = true}, 10);
    RunTraffic({.blocks = 9, .prefix_cache = prefix_cache, .credits = true, .cancels = true}, 10);
  }
}

TEST(CoreProperty, ASmallStagingAreaChangesNothing) {
  RunTraffic({.blocks = 40, .credits = true, .staging_rows = 20}, 6);
}

TEST(CoreProperty, OneRunningSequenceChangesNothing) {
  RunTraffic({.blocks = 8, .chunk = 5, .running = 1}, 6);
}

TEST(CoreProperty, TwoRunningSequencesChangeNothing) {
  RunTraffic({.blocks = 14, .chunk = 5, .running = 2}, 6);
  RunTraffic({.blocks = 14, .chunk = 3, .running = 3, .prefix_cache = false}, 6);
}

/// All of the above once more on a device that runs ahead.
class RunningAhead : public testing::TestWithParam<Pace> {};

INSTANTIATE_TEST_SUITE_P(CoreProperty, RunningAhead, testing::Values(Pace::kLate, Pace::kAtOnce),
                         [](const auto& pace) {
                           return pace.param == Pace::kLate ? "Late" : "AtOnce";
                         });

TEST_P(RunningAhead, ChangesNothing) {
  for (const bool plain : {true, false}) {
    RunTraffic({.blocks = 256, .plain = plain, .ahead = GetParam()}, 6);
    RunTraffic({.blocks = 20, .chunk = 32, .running = 4, .plain = plain, .ahead = GetParam()}, 6);
    RunTraffic({.blocks = 14, .chunk = 5, .running = 2, .plain = plain, .ahead = GetParam()}, 4);
  }
}

TEST_P(RunningAhead, ChangesNothingWhenSequencesArePreempted) {
  for (const bool prefix_cache : {true, false}) {
    for (const int32_t blocks : {8, 13}) {
      EXPECT_GT(
          RunTraffic(
              {.blocks = blocks, .prefix_cache = prefix_cache, .plain = true, .ahead = GetParam()},
              6),
          0u);
    }
  }
}

TEST_P(RunningAhead, ChangesNothingWhenCreditsAreFewAndRequestsAreCancelled) {
  for (const bool prefix_cache : {true, false}) {
    for (const int32_t blocks : {9, 64}) {
      Traffic traffic = {.blocks = blocks, .prefix_cache = prefix_cache, .credits = true};
      traffic.plain = true;
      traffic.ahead = GetParam();
      RunTraffic(traffic, 6);
      traffic.cancels = true;
      RunTraffic(traffic, 6);
      traffic.credits = false;
      RunTraffic(traffic, 6);
    }
  }
}

}  // namespace
}  // namespace llama_steer
