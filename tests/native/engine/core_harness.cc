#include "engine/core_harness.h"

#include <cmath>
#include <utility>

namespace llama_steer {

EngineOptions TestOptions() {
  EngineOptions options;
  options.config.hidden_size = 8;
  options.config.intermediate_size = 16;
  options.config.layers = kTestLayers;
  options.config.query_heads = 1;
  options.config.kv_heads = 1;
  options.config.head_size = 8;
  options.config.vocab_size = 1000;
  options.config.context_tokens = 4096;
  options.max_batch_tokens = 64;
  options.max_running_sequences = 16;
  AddTokenTexts(options);
  return options;
}

void AddTokenTexts(EngineOptions& options) {
  options.token_bytes.clear();
  options.token_offsets = {0};
  for (int32_t token = 0; token < options.config.vocab_size; ++token) {
    const uint64_t h = Mix(77, static_cast<uint64_t>(token));
    options.token_bytes.push_back(static_cast<uint8_t>('a' + h % 4));
    if (h / 4 % 2 == 1) options.token_bytes.push_back(static_cast<uint8_t>('a' + h / 8 % 4));
    options.token_offsets.push_back(static_cast<uint32_t>(options.token_bytes.size()));
  }
}

std::vector<uint8_t> TextOf(const EngineOptions& options, std::span<const uint32_t> tokens) {
  std::vector<uint8_t> text;
  for (const uint32_t token : tokens) {
    const auto begin = options.token_bytes.begin() + options.token_offsets[token];
    text.insert(text.end(), begin, options.token_bytes.begin() + options.token_offsets[token + 1]);
  }
  return text;
}

std::vector<uint8_t> Bytes(std::string_view text) { return {text.begin(), text.end()}; }

VectorRows TestVector(const LlamaConfig& config, VectorHandle handle) {
  VectorRows vector;
  vector.handle = handle;
  vector.digest.fill(static_cast<uint8_t>(handle));
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    vector.layers.push_back(layer);
    std::vector<float> row;
    for (int32_t i = 0; i < config.hidden_size; ++i) {
      const uint64_t h = Mix(handle, static_cast<uint64_t>(layer * 100003 + i));
      row.push_back(static_cast<float>(h >> 40) * 0x1p-24f - 0.5f);
    }
    vector.rows.push_back(std::move(row));
  }
  return vector;
}

TestLora::TestLora(const LlamaConfig& config, AdapterHandle handle) : handle_(handle) {
  const int64_t d = config.hidden_size;
  const int64_t wide = config.intermediate_size;
  const int64_t q = int64_t{config.query_heads} * config.head_size;
  const int64_t kv = int64_t{config.kv_heads} * config.head_size;
  const struct {
    LoraModule module;
    int64_t inputs;
    int64_t outputs;
    bool second;
  } modules[] = {{LoraModule::kQ, d, q, true},        {LoraModule::kK, d, kv, false},
                 {LoraModule::kV, d, kv, true},       {LoraModule::kO, q, d, false},
                 {LoraModule::kGate, d, wide, false}, {LoraModule::kUp, d, wide, true},
                 {LoraModule::kDown, wide, d, true}};
  const int64_t rank = handle == 1 ? 3 : 5;
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    for (const auto& module : modules) {
      if (handle != 1 && (!module.second || layer % 2 == 1)) continue;
      const TensorView a = Factor(rank, module.inputs);
      const TensorView b = Factor(module.outputs, rank);
      lora_.factors.push_back({layer, module.module, handle == 1 ? 0.75f : 1.5f, a, b});
    }
  }
}

TensorView TestLora::Factor(int64_t rows, int64_t cols) {
  std::vector<float> values(static_cast<size_t>(rows * cols));
  const float scale = 1.0f / std::sqrt(static_cast<float>(cols));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t h = Mix(Mix(handle_ + 50, values_.size()), i);
    values[i] = scale * (static_cast<float>(h >> 40) * 0x1p-23f - 1.0f);
  }
  values_.push_back(std::move(values));
  return {"test.lora", values_.back().data(), DType::kF32, rows, cols};
}

Digest TestLora::digest() const {
  Digest digest{};
  digest.fill(static_cast<uint8_t>(0xa0 + handle_));
  return digest;
}

EngineRequest TestRequest(RequestId id, int32_t prompt_tokens, uint32_t new_tokens, uint32_t seed) {
  EngineRequest request;
  request.id = id;
  for (int32_t i = 0; i < prompt_tokens; ++i) {
    const uint64_t h = Mix(seed, static_cast<uint64_t>(i));
    request.prompt_token_ids.push_back(static_cast<uint32_t>(h % 100) + 8);
  }
  request.max_new_tokens = new_tokens;
  request.sampling.seed = seed;
  request.sampling.logprobs = true;
  request.sampling.top_logprobs = 2;
  request.credits = 1 << 20;
  request.capture_credit_bytes = uint64_t{1} << 40;
  return request;
}

EngineRequest SteeredRequest(RequestId id, int32_t prompt_tokens, uint32_t new_tokens,
                             std::vector<SteeringParams> steering) {
  EngineRequest request = TestRequest(id, prompt_tokens, new_tokens);
  request.steering = std::move(steering);
  return request;
}

SteeringParams TestSteering(VectorHandle vector, std::vector<int32_t> layers,
                            int32_t position_begin, int32_t position_end) {
  SteeringParams steering;
  steering.vector = vector;
  steering.layers = std::move(layers);
  steering.position_begin = position_begin;
  steering.position_end = position_end;
  return steering;
}

CoreHarness::CoreHarness(const EngineOptions& options, std::unique_ptr<ModelRunner> runner)
    : runner_(std::move(runner)),
      sink_([this](const EngineEvent& event) { transcript_.Add(event); }) {
  core_ = std::make_unique<EngineCore>(options, *runner_, sink_);
  for (VectorHandle handle = 1; handle <= kTestVectors; ++handle) {
    core_->PutVector(TestVector(options.config, handle));
  }
  for (AdapterHandle handle = 1; handle <= kTestAdapters; ++handle) {
    const TestLora lora(options.config, handle);
    core_->PutAdapter(handle, lora.digest(), lora.lora());
  }
}

CoreHarness::CoreHarness(const EngineOptions& options, int32_t blocks, int32_t block_tokens)
    : CoreHarness(options, std::make_unique<FakeModel>(options.config, blocks, block_tokens)) {
  fake_ = static_cast<FakeModel*>(runner_.get());
}

CoreHarness::CoreHarness(const EngineOptions& options, int32_t blocks, Pace pace)
    : CoreHarness(options, std::make_unique<AheadRunner>(
                               std::make_unique<FakeModel>(options.config, blocks, 16), pace)) {
  ahead_ = static_cast<AheadRunner*>(runner_.get());
  fake_ = static_cast<FakeModel*>(&ahead_->inner());
}

bool CoreHarness::Step() {
  const StatusOr<bool> stepped = core_->Step();
  EXPECT_TRUE(stepped.ok()) << stepped.status().message();
  return stepped.ok() && stepped.value();
}

void CoreHarness::Run() {
  while (Step()) {
  }
}

RequestRecord& CoreHarness::Run(EngineRequest request) {
  const RequestId id = request.id;
  Submit(std::move(request));
  Run();
  return transcript_.of(id);
}

EngineStats CoreHarness::Stats() const {
  EngineStats stats;
  core_->ReadStats(stats);
  return stats;
}

void CoreHarness::ExpectIdle() {
  const EngineStats stats = Stats();
  EXPECT_EQ(stats.kv_blocks_used, 0u);
  EXPECT_EQ(stats.running_requests, 0u);
  EXPECT_EQ(stats.waiting_requests, 0u);
  for (const std::string& complaint : transcript_.complaints()) ADD_FAILURE() << complaint;
  for (const auto& [id, record] : transcript_.records()) {
    EXPECT_TRUE(record.done.has_value()) << "request " << id << " has not ended";
  }
}

RequestRecord RunAlone(const EngineRequest& request) {
  EngineOptions options = TestOptions();
  options.max_batch_tokens = 4096;
  options.prefix_cache = false;
  CoreHarness harness(options, 512);
  return harness.Run(request);
}

}  // namespace llama_steer
