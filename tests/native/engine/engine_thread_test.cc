// The engine with its thread: commands from many threads, ends in every race.
#include "engine/engine_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "engine/clock.h"
#include "engine/core_harness.h"
#include "engine/random_requests.h"
#include "model/tiny_lora.h"

namespace llama_steer {
namespace {

using std::chrono_literals::operator""ms;

/// What the engine said, readable from any thread.
class Listener {
 public:
  EventSink Sink() {
    return [this](const EngineEvent& event) {
      const std::lock_guard lock(mutex_);
      transcript_.Add(event);
      if (const auto* done = std::get_if<DoneEvent>(&event)) ++ends_[done->id];
      changed_.notify_all();
    };
  }
  /// False when it does not come true within ten seconds.
  bool WaitFor(const std::function<bool(Transcript&)>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 10000ms, [&] { return condition(transcript_); });
  }
  bool WaitForEnd(RequestId id) {
    return WaitFor([id](Transcript& transcript) { return transcript.of(id).done.has_value(); });
  }
  RequestRecord Record(RequestId id) {
    const std::lock_guard lock(mutex_);
    return transcript_.of(id);
  }
  void ExpectEachEndedOnce(RequestId first, RequestId last) {
    const std::lock_guard lock(mutex_);
    for (RequestId id = first; id <= last; ++id) EXPECT_EQ(ends_[id], 1) << "request " << id;
    for (const std::string& complaint : transcript_.complaints()) ADD_FAILURE() << complaint;
  }
  std::vector<FatalEvent> fatal() {
    const std::lock_guard lock(mutex_);
    return transcript_.fatal();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Transcript transcript_;
  std::map<RequestId, int32_t> ends_;
};

using ForwardHook = std::function<Status(const ForwardStep&)>;

RunnerFactory FakeFactory(const EngineOptions& options, int32_t blocks, ForwardHook hook = {}) {
  return [options, blocks,
          hook](const RunnerProgress& progress) -> StatusOr<std::unique_ptr<ModelRunner>> {
    progress(1, 1);
    auto fake = std::make_unique<FakeModel>(options.config, blocks, 16);
    fake->on_forward = hook;
    return std::unique_ptr<ModelRunner>(std::move(fake));
  };
}

/// The same on a device that runs ahead.
RunnerFactory AheadFactory(RunnerFactory inner) {
  return [inner](const RunnerProgress& progress) -> StatusOr<std::unique_ptr<ModelRunner>> {
    StatusOr<std::unique_ptr<ModelRunner>> runner = inner(progress);
    if (!runner.ok()) return runner;
    return std::unique_ptr<ModelRunner>(
        std::make_unique<AheadRunner>(std::move(runner).value(), Pace::kAtOnce));
  };
}

std::unique_ptr<Engine> Start(Listener& listener, ForwardHook hook = {}, int32_t blocks = 64,
                              bool ahead = false) {
  const EngineOptions options = TestOptions();
  RunnerFactory factory = FakeFactory(options, blocks, std::move(hook));
  if (ahead) factory = AheadFactory(std::move(factory));
  auto engine = std::make_unique<EngineThread>(options, listener.Sink(), std::move(factory));
  EXPECT_TRUE(listener.WaitFor([](Transcript& transcript) { return transcript.ready(); }));
  for (VectorHandle handle = 1; handle <= kTestVectors; ++handle) {
    EXPECT_TRUE(engine->PutVector(TestVector(options.config, handle)).ok());
  }
  return engine;
}

TEST(EngineThread, RunsARequestAndReportsIt) {
  Listener listener;
  const auto engine = Start(listener);
  engine->Submit(TestRequest(1, 20, 5));
  ASSERT_TRUE(listener.WaitForEnd(1));
  EXPECT_TRUE(listener.Record(1).done->status.ok());
  engine->Close();
  const EngineStats stats = engine->Stats();
  EXPECT_EQ(stats.steps, 5u);
  EXPECT_EQ(stats.generated_tokens, 5u);
  EXPECT_EQ(stats.kv_blocks_used, 0u);
  EXPECT_EQ(stats.recent_batch_tokens, (std::vector<uint32_t>{20, 1, 1, 1, 1}));
  EXPECT_TRUE(engine->Stats().recent_batch_tokens.empty());
}

TEST(EngineThread, RefusesRequestsWhileLoadingAndAfterClose) {
  Listener listener;
  std::promise<void> loaded;
  std::shared_future<void> gate = loaded.get_future().share();
  const EngineOptions options = TestOptions();
  EngineThread engine(options, listener.Sink(), [gate, &options](const RunnerProgress& progress) {
    gate.wait();
    return FakeFactory(options, 64)(progress);
  });
  engine.Submit(TestRequest(1, 20, 5));
  EXPECT_EQ(listener.Record(1).done->status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(engine.PutVector(TestVector(options.config, 1)).code(), StatusCode::kUnavailable);
  loaded.set_value();
  ASSERT_TRUE(listener.WaitFor([](Transcript& transcript) { return transcript.ready(); }));
  engine.Close();
  engine.Submit(TestRequest(2, 20, 5));
  EXPECT_EQ(listener.Record(2).done->status.code(), StatusCode::kUnavailable);
}

TEST(EngineThread, ClosingStopsALoad) {
  Listener listener;
  EngineThread engine(TestOptions(), listener.Sink(),
                      [](const RunnerProgress& progress) -> StatusOr<std::unique_ptr<ModelRunner>> {
                        while (progress(1, 2)) std::this_thread::yield();
                        return Status(StatusCode::kCancelled, "loading was stopped");
                      });
  engine.Close();
  EXPECT_TRUE(listener.fatal().empty());
}

TEST(EngineThread, ALoadThatRunsOutOfMemoryIsFatal) {
  Listener listener;
  EngineThread engine(TestOptions(), listener.Sink(),
                      [](const RunnerProgress&) -> StatusOr<std::unique_ptr<ModelRunner>> {
                        throw std::bad_alloc();
                      });
  ASSERT_TRUE(listener.WaitFor([](Transcript& transcript) { return !transcript.fatal().empty(); }));
  EXPECT_EQ(listener.fatal()[0].status.code(), StatusCode::kResourceExhausted);
}

TEST(EngineThread, ALoadThatFailsIsFatal) {
  Listener listener;
  EngineThread engine(TestOptions(), listener.Sink(),
                      [](const RunnerProgress&) -> StatusOr<std::unique_ptr<ModelRunner>> {
                        return Status::InvalidArgument("the file is cut off");
                      });
  ASSERT_TRUE(listener.WaitFor([](Transcript& transcript) { return !transcript.fatal().empty(); }));
  EXPECT_EQ(listener.fatal()[0].status.message(), "the file is cut off");
  engine.Submit(TestRequest(1, 20, 5));
  EXPECT_EQ(listener.Record(1).done->status.code(), StatusCode::kUnavailable);
}

class DeviceFault : public testing::TestWithParam<bool> {};

INSTANTIATE_TEST_SUITE_P(EngineThread, DeviceFault, testing::Bool(), [](const auto& ahead) {
  return ahead.param ? "RunningAhead" : "StepByStep";
});

TEST_P(DeviceFault, EndsEveryRequestAndThenTheEngine) {
  Listener listener;
  std::atomic<int> steps = 0;
  const auto fail = [&steps](const ForwardStep&) {
    return ++steps == 5 ? Status::Internal("ECC error") : Status::Ok();
  };
  const auto engine = Start(listener, fail, 64, GetParam());
  for (RequestId id = 1; id <= 40; ++id) engine->Submit(TestRequest(id, 20, 50));
  ASSERT_TRUE(listener.WaitFor([](Transcript& transcript) { return !transcript.fatal().empty(); }));
  EXPECT_EQ(listener.fatal()[0].status.message(), "ECC error");
  for (RequestId id = 1; id <= 40; ++id) {
    ASSERT_TRUE(listener.WaitForEnd(id));
    const StatusCode code = listener.Record(id).done->status.code();
    EXPECT_TRUE(code == StatusCode::kInternal || code == StatusCode::kUnavailable);
  }
  listener.ExpectEachEndedOnce(1, 40);
  EXPECT_EQ(engine->Stats().kv_blocks_used, 0u);
  EXPECT_EQ(engine->Stats().last_step_age_seconds, 0.0);
}

TEST(EngineThread, CloseCancelsWhatRunsWaitsOrIsStillInTheInbox) {
  Listener listener;
  const auto engine = Start(listener);
  EngineRequest unread = TestRequest(1, 20, 50);
  unread.credits = 0;
  engine->Submit(unread);
  for (RequestId id = 2; id <= 60; ++id) engine->Submit(TestRequest(id, 200, 500));
  engine->Close();
  engine->Close();
  listener.ExpectEachEndedOnce(1, 60);
  EXPECT_EQ(listener.Record(1).done->status.code(), StatusCode::kCancelled);
  EXPECT_EQ(listener.Record(60).done->status.code(), StatusCode::kCancelled);
}

TEST(EngineThread, ADeadlineWakesTheParkedThread) {
  Listener listener;
  const auto engine = Start(listener);
  EngineRequest request = TestRequest(1, 20, 50);
  request.credits = 1;
  request.deadline_ns = MonotonicNs() + 30'000'000;
  engine->Submit(request);
  ASSERT_TRUE(listener.WaitForEnd(1));
  EXPECT_EQ(listener.Record(1).done->status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(listener.Record(1).done->completion_tokens, 1u);
}

TEST(EngineThread, AStuckStepShowsInItsAge) {
  Listener listener;
  std::promise<void> release;
  std::shared_future<void> gate = release.get_future().share();
  const auto engine = Start(listener, [gate](const ForwardStep&) {
    gate.wait();
    return Status::Ok();
  });
  EXPECT_EQ(engine->Stats().steps, 0u);
  engine->Submit(TestRequest(1, 20, 2));
  std::this_thread::sleep_for(30ms);
  EXPECT_GE(engine->Stats().last_step_age_seconds, 0.02);
  release.set_value();
  ASSERT_TRUE(listener.WaitForEnd(1));
  for (int i = 0; i < 1000 && engine->Stats().last_step_age_seconds != 0.0; ++i) {
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_EQ(engine->Stats().last_step_age_seconds, 0.0);
}

TEST(EngineThread, RequestsWaitFromSubmissionOnHoweverLongAStepTakes) {
  Listener listener;
  std::promise<void> stepping;
  std::promise<void> release;
  std::shared_future<void> gate = release.get_future().share();
  bool first = true;
  const auto engine = Start(listener, [&](const ForwardStep&) {
    if (first) stepping.set_value();
    first = false;
    gate.wait();
    return Status::Ok();
  });
  engine->Submit(TestRequest(1, 20, 2));
  EXPECT_EQ(engine->Stats().waiting_requests, 1u);
  stepping.get_future().wait();
  EXPECT_EQ(engine->Stats().waiting_requests, 1u);
  engine->Submit(TestRequest(2, 30, 2));
  EXPECT_EQ(engine->Stats().waiting_requests, 2u);
  EXPECT_EQ(engine->Stats().waiting_prompt_tokens, 50u);
  release.set_value();
  ASSERT_TRUE(listener.WaitForEnd(1));
  ASSERT_TRUE(listener.WaitForEnd(2));
  for (int i = 0; i < 1000 && engine->Stats().last_step_age_seconds != 0.0; ++i) {
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_EQ(engine->Stats().waiting_requests, 0u);
}

TEST(EngineThread, AStuckStepThatWasBegunAheadShowsInItsAge) {
  Listener listener;
  std::promise<void> release;
  std::shared_future<void> gate = release.get_future().share();
  std::atomic<int> steps = 0;
  const auto stick = [&steps, gate](const ForwardStep&) {
    if (++steps == 5) gate.wait();
    return Status::Ok();
  };
  const auto engine = Start(listener, stick, 64, true);
  engine->Submit(TestRequest(1, 20, 8));
  // Four tokens come, though the step behind them does not end.
  ASSERT_TRUE(listener.WaitFor([](Transcript& t) { return t.of(1).token_events == 4; }));
  std::this_thread::sleep_for(30ms);
  EXPECT_GE(engine->Stats().last_step_age_seconds, 0.02);
  release.set_value();
  ASSERT_TRUE(listener.WaitForEnd(1));
  EXPECT_EQ(listener.Record(1).token_events, 8);
}

TEST(EngineThread, ACancelIsHonouredWithinAStep) {
  Listener listener;
  const auto engine = Start(listener, [](const ForwardStep&) {
    std::this_thread::sleep_for(1ms);
    return Status::Ok();
  });
  engine->Submit(TestRequest(1, 20, 1000));
  ASSERT_TRUE(listener.WaitFor([](Transcript& t) { return t.of(1).token_events >= 3; }));
  const int64_t before = listener.Record(1).token_events;
  engine->Cancel(1, -1);
  ASSERT_TRUE(listener.WaitForEnd(1));
  EXPECT_LE(listener.Record(1).token_events, before + 100);
  EXPECT_EQ(listener.Record(1).done->status.code(), StatusCode::kCancelled);
}

TEST(EngineThread, BadVectorsAreRefusedAtOnce) {
  Listener listener;
  const auto engine = Start(listener);
  const LlamaConfig config = TestOptions().config;
  VectorRows vector = TestVector(config, 50);
  vector.rows[1][3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(engine->PutVector(vector).code(), StatusCode::kInvalidArgument);
  vector = TestVector(config, 50);
  vector.rows[1].pop_back();
  EXPECT_EQ(engine->PutVector(vector).code(), StatusCode::kInvalidArgument);
  vector = TestVector(config, 50);
  vector.layers[3] = 4;
  EXPECT_EQ(engine->PutVector(vector).code(), StatusCode::kInvalidArgument);
  vector = TestVector(config, 50);
  EXPECT_TRUE(engine->PutVector(vector).ok());
  EXPECT_TRUE(engine->PutVector(vector).ok());  // the same content again
  vector.digest.fill(99);
  EXPECT_EQ(engine->PutVector(vector).code(), StatusCode::kFailedPrecondition);
  engine->DropVector(50);
  EXPECT_TRUE(engine->PutVector(vector).ok());
}

AdapterFiles FilesOf(test::TinyLora& lora, AdapterHandle handle) {
  AdapterFiles adapter;
  adapter.handle = handle;
  adapter.digest.fill(static_cast<uint8_t>(handle));
  adapter.lora = lora.files();
  return adapter;
}

TEST(EngineThread, AdaptersAreCheckedAndServed) {
  Listener listener;
  test::TinyLora lora(TestOptions().config, {.modules = test::EveryModule()});
  EngineOptions options = TestOptions();
  options.max_adapter_bytes = lora.size_bytes() * 2;
  const auto engine =
      std::make_unique<EngineThread>(options, listener.Sink(), FakeFactory(options, 64));
  ASSERT_TRUE(listener.WaitFor([](Transcript& transcript) { return transcript.ready(); }));
  EXPECT_EQ(engine->PutAdapter(FilesOf(lora, kNoAdapter)).code(), StatusCode::kInvalidArgument);
  AdapterFiles broken = FilesOf(lora, 1);
  broken.lora.targets[0].rank = 9;
  EXPECT_EQ(engine->PutAdapter(broken).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(engine->PutAdapter(FilesOf(lora, 1)).ok());
  EXPECT_TRUE(engine->PutAdapter(FilesOf(lora, 1)).ok());  // the same content again
  AdapterFiles other = FilesOf(lora, 1);
  other.digest.fill(99);
  EXPECT_EQ(engine->PutAdapter(other).code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(engine->PutAdapter(FilesOf(lora, 2)).ok());
  EXPECT_EQ(engine->PutAdapter(FilesOf(lora, 3)).code(), StatusCode::kResourceExhausted);
  engine->DropAdapter(2);
  EXPECT_TRUE(engine->PutAdapter(FilesOf(lora, 3)).ok());

  for (RequestId id = 1; id <= 3; ++id) {
    EngineRequest request = TestRequest(id, 10, 3);
    request.adapter = id;
    engine->Submit(std::move(request));
  }
  for (RequestId id = 1; id <= 3; ++id) ASSERT_TRUE(listener.WaitForEnd(id));
  EXPECT_TRUE(listener.Record(1).done->status.ok());
  EXPECT_EQ(listener.Record(2).done->status.code(), StatusCode::kNotFound);
  EXPECT_TRUE(listener.Record(3).done->status.ok());
  EXPECT_EQ(engine->Stats().resident_adapters, 2u);
  EXPECT_EQ(engine->Stats().resident_adapter_bytes, 2 * lora.size_bytes());
  engine->Close();
  EXPECT_EQ(engine->PutAdapter(FilesOf(lora, 5)).code(), StatusCode::kUnavailable);
}

// Submits, cancels, grants, vectors and stats from four threads while a fifth closes.
TEST(EngineThread, EveryRequestEndsOnceInEveryRace) {
  for (int round = 0; round < 40; ++round) {
    Listener listener;
    const auto engine = Start(listener, {}, 24, round >= 20);
    constexpr RequestId kEach = 40;
    std::vector<std::thread> clients;
    for (RequestId client = 0; client < 4; ++client) {
      clients.emplace_back([&engine, client] {
        std::mt19937 random(static_cast<uint32_t>(client) + 1);
        for (RequestId i = 0; i < kEach; ++i) {
          const RequestId id = 1 + client * kEach + i;
          EngineRequest request = RandomRequest(id, TestOptions().config, {}, random);
          request.credits = random() % 8;
          engine->Submit(std::move(request));
          engine->Grant(id, random() % 50, random() % 5000);
          if (random() % 4 == 0) engine->Cancel(id, static_cast<int32_t>(random() % 3) - 1);
          if (random() % 8 == 0) (void)engine->Stats();
          const VectorHandle handle = 100 + client;
          (void)engine->PutVector(TestVector(TestOptions().config, handle));
          if (random() % 2 == 0) engine->DropVector(handle);
        }
      });
    }
    if (round % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(round));
    std::thread closer([&engine] { engine->Close(); });
    for (std::thread& client : clients) client.join();
    closer.join();
    listener.ExpectEachEndedOnce(1, 4 * kEach);
    EXPECT_EQ(engine->Stats().kv_blocks_used, 0u);
  }
}

}  // namespace
}  // namespace llama_steer
