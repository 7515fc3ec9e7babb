// The promises of the engine on a real backend with random weights, bit for bit: whatever else is
// in the batch, however the prompt is cut, cached or preempted.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <mutex>

#include "device.h"
#include "engine/core_harness.h"
#include "engine/engine.h"
#include "engine/llama_runner.h"
#include "engine/random_requests.h"
#include "engine/tiny_checkpoint.h"

namespace llama_steer {
namespace {

// An emulated device is slow, more so under sanitizers: there the mixtures are smaller.
constexpr RequestId kMixedRequests = !test::kOnCuda ? 16 : test::kSanitized ? 4 : 6;
const std::vector<uint32_t> kBatchSeeds =
    test::kOnCuda ? std::vector<uint32_t>{1} : std::vector<uint32_t>{1, 2, 3};
const std::vector<int32_t> kChunks =
    test::kOnCuda ? std::vector<int32_t>{7} : std::vector<int32_t>{1, 7, 512};
const std::vector<uint32_t> kPreemptionSeeds =
    test::kOnCuda ? std::vector<uint32_t>{6} : std::vector<uint32_t>{5, 6, 7, 8};

struct ModelCase {
  const char* name = "";
  DType stored = DType::kF32;
  WeightFormat format = WeightFormat::kAsStored;
  DType kv = DType::kF32;
  int32_t head_size = 16;
};

struct RunCase {
  int32_t chunk = 64;
  int32_t blocks = 512;
  bool prefix_cache = true;
  bool plain = false;
  std::optional<Pace> ahead{};
};

std::vector<ModelCase> Cases() {
  std::vector<ModelCase> cases = {{.name = "F32"},
                                  // On CUDA, heads of 32 with bf16 pages go to the tensor cores.
                                  {.name = "Bf16",
                                   .stored = DType::kBF16,
                                   .kv = DType::kBF16,
                                   .head_size = test::kOnCuda ? 32 : 16},
                                  {.name = "Int8", .format = WeightFormat::kInt8}};
  if (test::kOnCuda) cases.push_back({.name = "Fp8", .format = WeightFormat::kFp8});
  return cases;
}

class RealModel : public testing::TestWithParam<ModelCase> {
 protected:
  EngineOptions Options(const RunCase& run) const {
    EngineOptions options;
    options.config = checkpoint_.config();
    options.checkpoint = checkpoint_.files();
    options.device = test::kDevice;
    options.weight_format = GetParam().format;
    options.kv_dtype = GetParam().kv;
    options.threads = 2;
    options.max_batch_tokens = run.chunk;
    options.max_running_sequences = 16;
    options.prefix_cache = run.prefix_cache;
    const LlamaConfig& config = checkpoint_.config();
    const int32_t values = 2 * config.layers * config.kv_heads * config.head_size;
    const uint64_t token_bytes = static_cast<uint64_t>(values) * DTypeBytes(options.kv_dtype);
    options.kv_cache_bytes = static_cast<uint64_t>(run.blocks) * kKvBlockTokens * token_bytes;
    AddTokenTexts(options);
    return options;
  }

  std::unique_ptr<CoreHarness> Start(const RunCase& run) const {
    const EngineOptions options = Options(run);
    StatusOr<std::unique_ptr<ModelRunner>> runner = MakeLlamaRunner(options, {});
    EXPECT_TRUE(runner.ok()) << runner.status().message();
    EXPECT_EQ((*runner)->info().kv.blocks, run.blocks);
    if (run.ahead) {
      *runner = std::make_unique<AheadRunner>(std::move(runner).value(), *run.ahead);
    }
    return std::make_unique<CoreHarness>(options, std::move(runner.value()));
  }

  /// Step by step, whatever the device can.
  RequestRecord Alone(const EngineRequest& request) const {
    setenv("LLAMA_STEER_CUDA_ASYNC_STEPS", "off", 1);
    const auto harness = Start({.chunk = 512, .prefix_cache = false});
    unsetenv("LLAMA_STEER_CUDA_ASYNC_STEPS");
    RequestRecord record = harness->Run(request);
    EXPECT_EQ(harness->core().steps_ahead(), 0u);
    return record;
  }

  std::vector<EngineRequest> MixedRequests(uint32_t seed, const RunCase& run = {}) const {
    std::mt19937 random(seed);
    RandomRequestLimits limits;
    // A request and its shadow: two rows a step, and twice the blocks of the longest one.
    limits.compare = run.blocks >= 12 && run.chunk >= 2;
    std::vector<EngineRequest> requests;
    for (RequestId id = 1; id <= kMixedRequests; ++id) {
      limits.plain = run.plain && id % 8 != 0;
      requests.push_back(RandomRequest(id, checkpoint_.config(), limits, random));
    }
    return requests;
  }

  /// Runs all together, cancels every fifth on the way, and compares with each alone.
  uint64_t RunTogether(const RunCase& run, uint32_t seed) const {
    const auto harness = Start(run);
    const std::vector<EngineRequest> requests = MixedRequests(seed, run);
    for (const EngineRequest& request : requests) {
      harness->Submit(request);
      if (request.id % 4 == 0) harness->Step();
    }
    for (const EngineRequest& request : requests) {
      if (request.id % 5 != 0) continue;
      harness->Step();
      harness->core().Cancel(request.id, -1);
    }
    harness->Run();
    harness->ExpectIdle();
    for (const EngineRequest& request : requests) {
      const RequestRecord& record = harness->transcript().of(request.id);
      const RequestRecord alone = Alone(request);
      // A prefill whose prompt does not hold the text that it asks for is refused.
      const StatusCode code = alone.done->status.code();
      EXPECT_TRUE(code == StatusCode::kOk || code == StatusCode::kInvalidArgument)
          << alone.done->status.message();
      const bool cancelled = record.done->status.code() == StatusCode::kCancelled;
      EXPECT_EQ(cancelled ? DifferenceOfBeginning(record, alone) : Difference(record, alone), "")
          << "request " << request.id;
    }
    return harness->Stats().preemptions;
  }

  static LlamaConfig Config() {
    LlamaConfig config = TinyConfig();
    config.head_size = GetParam().head_size;
    return config;
  }

  TinyCheckpoint checkpoint_{Config(), GetParam().stored, 1};
};

INSTANTIATE_TEST_SUITE_P(On, RealModel, testing::ValuesIn(Cases()),
                         [](const auto& example) { return std::string(example.param.name); });

TEST_P(RealModel, ABatchSaysWhatEachRequestSaysAlone) {
  for (const uint32_t seed : kBatchSeeds) RunTogether({}, seed);
}

TEST_P(RealModel, ChunksChangeNothing) {
  for (const int32_t chunk : kChunks) RunTogether({.chunk = chunk}, 4);
}

TEST_P(RealModel, PreemptionChangesNothing) {
  // With 13 blocks there is room for shadows.
  for (const int32_t blocks : {8, 13}) {
    uint64_t preemptions = 0;
    for (const uint32_t seed : kPreemptionSeeds) {
      preemptions += RunTogether({.blocks = blocks, .prefix_cache = seed % 2 == 0}, seed);
    }
    EXPECT_GT(preemptions, 0u) << blocks << " blocks";
  }
}

TEST_P(RealModel, EveryDecodeStepButTheFirstIsBegunAhead) {
  RunCase run;
  if (!test::kOnCuda) run.ahead = Pace::kLate;
  const auto harness = Start(run);
  std::vector<EngineRequest> requests;
  for (RequestId id = 1; id <= 3; ++id) {
    requests.push_back(TestRequest(id, 20, 16, static_cast<uint32_t>(id)));
    requests.back().steering = {TestSteering(id, {0, 2}, 10)};
    harness->Submit(requests.back());
  }
  harness->Run();
  harness->ExpectIdle();
  EXPECT_EQ(harness->core().steps_ahead(), 14u);
  for (const EngineRequest& request : requests) {
    EXPECT_EQ(Difference(harness->transcript().of(request.id), Alone(request)), "");
  }
}

TEST_P(RealModel, StepsThatAreBegunAheadChangeNothing) {
  std::vector<RunCase> runs;
  for (const int32_t blocks : {512, 9}) {
    // The CPU does not run ahead of itself.
    RunCase run{.blocks = blocks, .plain = true};
    if (!test::kOnCuda) run.ahead = blocks == 512 ? Pace::kAtOnce : Pace::kLate;
    runs.push_back(run);
  }
  for (const RunCase& run : runs) {
    for (const uint32_t seed : kBatchSeeds) RunTogether(run, 10 + seed);
  }
}

TEST_P(RealModel, AWarmCacheChangesNothing) {
  const auto harness = Start({});
  uint64_t reused = 0;
  for (EngineRequest request : MixedRequests(6)) {
    const RequestRecord first = harness->Run(request);
    request.id += 100;
    const RequestRecord& second = harness->Run(request);
    EXPECT_EQ(Difference(second, first), "") << "request " << request.id;
    reused += second.done->cached_prompt_tokens;
  }
  EXPECT_GT(reused, 0u);
  harness->ExpectIdle();
}

TEST_P(RealModel, ACoefficientThatDoesNothingLeavesTheBits) {
  EngineRequest request = TestRequest(1, 40, 12);
  const RequestRecord plain = Alone(request);
  for (const SteerKind kind :
       {SteerKind::kAdd, SteerKind::kProjectOut, SteerKind::kClamp, SteerKind::kScaleComponent}) {
    SteeringParams steering = TestSteering(1, {0, 1, 2, 3});
    steering.kind = kind;
    steering.coefficient = kind == SteerKind::kScaleComponent ? 1.0f : 0.0f;
    steering.preserve_norm = true;
    request.steering = {steering};
    RequestRecord steered = Alone(request);
    EXPECT_EQ(steered.done->applied[0].steered_rows, 4u * 51u);
    steered.done->applied.clear();
    EXPECT_EQ(Difference(steered, plain), "");
  }
}

TEST_P(RealModel, SteeringOneRequestLeavesTheBitsOfItsNeighbours) {
  const auto harness = Start({});
  const EngineRequest plain = TestRequest(1, 40, 12);
  EngineRequest steered = TestRequest(2, 40, 12);
  steered.steering = {TestSteering(1, {0, 1, 2, 3})};
  harness->Submit(plain);
  harness->Submit(steered);
  harness->Run();
  EXPECT_EQ(Difference(harness->transcript().of(1), Alone(plain)), "");
  EXPECT_NE(DifferenceOfBeginning(harness->transcript().of(2), Alone(plain)), "");
}

TEST_P(RealModel, AdaptersOfOthersLeaveTheBitsOfTheBaseModelsRows) {
  const auto harness = Start({});
  const EngineRequest plain = TestRequest(1, 40, 12);
  const RequestRecord alone = Alone(plain);
  harness->Submit(plain);
  for (AdapterHandle adapter = 1; adapter <= kTestAdapters; ++adapter) {
    EngineRequest other = TestRequest(1 + adapter, 40, 12);
    other.adapter = adapter;
    harness->Submit(other);
  }
  harness->Run();
  EXPECT_EQ(Difference(harness->transcript().of(1), alone), "");
  EXPECT_NE(DifferenceOfBeginning(harness->transcript().of(2), alone), "");
  EXPECT_NE(DifferenceOfBeginning(harness->transcript().of(3), alone), "");
}

TEST_P(RealModel, TheLensOnTheLastBlockSeesTheModelsOwnLogits) {
  for (const AdapterHandle adapter : {AdapterHandle{0}, AdapterHandle{1}}) {
    EngineRequest request = TestRequest(1, 40, 0);
    request.adapter = adapter;
    SteeringParams steering = TestSteering(2, {1, 3});
    request.steering = {steering};
    request.sampling.top_logprobs = 4;
    request.prompt_logprobs_from = 1;
    request.capture = CaptureParams{
        .sites = {CaptureSiteKind::kResidPost, CaptureSiteKind::kFinalNorm}, .layers = {2, 3}};
    request.capture->lens_top_k = 4;
    const RequestRecord record = Alone(request);
    ASSERT_TRUE(record.done->status.ok()) << record.done->status.message();
    const auto& last = record.captures.at({static_cast<int32_t>(CaptureSiteKind::kResidPost), 3});
    const auto& norm = record.captures.at({static_cast<int32_t>(CaptureSiteKind::kFinalNorm), 3});
    const auto& before = record.captures.at({static_cast<int32_t>(CaptureSiteKind::kResidPost), 2});
    ASSERT_EQ(last.lens.size(), 40u);
    EXPECT_EQ(norm.lens, last.lens);
    EXPECT_NE(before.lens, last.lens);
    for (size_t row = 0; row < 39; ++row) {
      std::vector<std::pair<uint32_t, float>> own;
      for (const TokenLogprob& top : record.prompt_logprobs[row].top) {
        own.emplace_back(top.token_id, top.logprob);
      }
      EXPECT_EQ(last.lens[row], own) << "row " << row;
    }
  }
}

TEST_P(RealModel, TheProofAgreesWithTheCapturedRows) {
  EngineRequest request = TestRequest(1, 33, 0);
  SteeringParams steering = TestSteering(2, {1});
  steering.coefficient = 1.5f;
  request.steering = {steering};
  request.capture = CaptureParams{.sites = {CaptureSiteKind::kResidPost}, .layers = {1}};
  const RequestRecord after = Alone(request);
  request.capture->before_steering = true;
  const RequestRecord before = Alone(request);
  const auto floats = [](const RequestRecord& record) {
    const std::vector<uint8_t>& data = record.captures.begin()->second.data;
    std::vector<float> values(data.size() / sizeof(float));
    std::memcpy(values.data(), data.data(), data.size());
    return values;
  };
  const std::vector<float> changed = floats(after);
  const std::vector<float> original = floats(before);
  const auto width = static_cast<size_t>(checkpoint_.config().hidden_size);
  const std::vector<float> vector = TestVector(checkpoint_.config(), 2).rows[1];
  double ratios = 0.0;
  for (size_t t = 0; t < 33; ++t) {
    double change = 0.0;
    double norm = 0.0;
    for (size_t i = 0; i < width; ++i) {
      const double h = original[t * width + i];
      EXPECT_NEAR(changed[t * width + i], h + 1.5 * static_cast<double>(vector[i]), 1e-5);
      change += std::pow(static_cast<double>(changed[t * width + i]) - h, 2);
      norm += h * h;
    }
    ratios += std::sqrt(change / norm);
  }
  EXPECT_NEAR(after.done->applied[0].mean_delta_ratio, ratios / 33, 1e-5);
}

TEST_P(RealModel, TheWholeEngineRunsARequest) {
  std::mutex mutex;
  std::condition_variable changed;
  Transcript transcript;
  const EventSink sink = [&](const EngineEvent& event) {
    const std::lock_guard lock(mutex);
    transcript.Add(event);
    changed.notify_all();
  };
  const auto wait_for = [&](const std::function<bool()>& condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(60), condition);
  };
  const std::unique_ptr<Engine> engine = Engine::Open(Options({}), sink);
  ASSERT_TRUE(wait_for([&] { return transcript.ready(); }));
  const EngineRequest request = TestRequest(1, 40, 12);
  engine->Submit(request);
  ASSERT_TRUE(wait_for([&] { return transcript.of(1).done.has_value(); }));
  engine->Close();
  EXPECT_EQ(Difference(transcript.of(1), Alone(request)), "");
}

TEST(LlamaRunner, RefusesWhatItCannotHold) {
  const TinyCheckpoint checkpoint(TinyConfig(), DType::kF32, 1);
  EngineOptions options;
  options.config = checkpoint.config();
  options.checkpoint = checkpoint.files();
  options.device = test::kDevice;
  options.kv_cache_bytes = 100;
  EXPECT_EQ(MakeLlamaRunner(options, {}).status().code(), StatusCode::kInvalidArgument);
  options.kv_cache_bytes = 1 << 20;
  options.kv_dtype = DType::kF16;
  EXPECT_EQ(MakeLlamaRunner(options, {}).status().code(), StatusCode::kInvalidArgument);
  options.kv_dtype = DType::kF32;
  if (!test::kOnCuda) {
    options.weight_format = WeightFormat::kFp8;
    const Status refused = MakeLlamaRunner(options, {}).status();
    EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(refused.message().find("fp8 weights need a CUDA device"), std::string::npos);
    options.weight_format = WeightFormat::kAsStored;
  }
  options.config.intermediate_size += 1;
  EXPECT_EQ(MakeLlamaRunner(options, {}).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace llama_steer
