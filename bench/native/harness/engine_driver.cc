#include "harness/engine_driver.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/clock.h"

namespace llama_steer::bench {
namespace {

constexpr uint32_t kEndlessCredits = 1u << 20;
constexpr uint64_t kEndlessBytes = 1ull << 50;
constexpr int32_t kVectors = 64;
constexpr uint32_t kSamePrompts = 1u << 24;  // numbers of prompts that come again
// Small against a residual stream of random weights, so that every logit stays finite.
constexpr float kVectorValue = 0.01f;

}  // namespace

/// The requests of one measurement, by stream = id - first_id.
struct EngineDriver::Batch {
  RequestId first_id = 0;
  int32_t streams = 0;
  int32_t done = 0;
  std::vector<bool> started;
  int32_t started_count = 0;
  uint64_t submit_ns = 0;
  uint64_t first_token_ns = 0;
  uint64_t all_started_ns = 0;
  uint64_t first_end_ns = 0;
  uint64_t last_token_ns = 0;  // of the steady part
  uint64_t done_ns = 0;
  uint64_t captured_bytes = 0;
  int64_t steady_tokens = 0;
  bool steered = true;  // every steering of every request acted on generated tokens

  void AddToken(const TokenEvent& event) {
    const uint64_t now = MonotonicNs();
    const auto stream = static_cast<size_t>(event.id - first_id);
    if (first_token_ns == 0) first_token_ns = now;
    // The step in which a stream ends counts no more: only its first event would.
    const bool ends = event.finish != FinishReason::kNone;
    if (ends && first_end_ns == 0) first_end_ns = now;
    if (all_started_ns != 0 && first_end_ns == 0) {
      ++steady_tokens;
      last_token_ns = now;
    }
    if (!started[stream]) {
      started[stream] = true;
      if (++started_count == streams) all_started_ns = now;
    }
  }
};

EngineDriver::EngineDriver(const LlamaConfig& config) : config_(config) {}

StatusOr<std::unique_ptr<EngineDriver>> EngineDriver::Open(EngineOptions options) {
  std::unique_ptr<EngineDriver> driver(new EngineDriver(options.config));
  EngineDriver* const self = driver.get();
  driver->engine_ =
      Engine::Open(std::move(options), [self](EngineEvent event) { self->Take(std::move(event)); });
  {
    std::unique_lock lock(driver->mutex_);
    driver->changed_.wait(lock, [&] { return self->loaded_ || !self->failure_.ok(); });
    if (!driver->failure_.ok()) return driver->failure_;
  }
  LLAMA_STEER_RETURN_IF_ERROR(driver->PutVectors());
  return driver;
}

EngineDriver::~EngineDriver() {
  if (engine_ != nullptr) engine_->Close();
}

Status EngineDriver::PutVectors() {
  for (int32_t handle = 1; handle <= kVectors; ++handle) {
    VectorRows vector;
    vector.handle = static_cast<VectorHandle>(handle);
    vector.digest[0] = static_cast<uint8_t>(handle);
    for (int32_t layer = 0; layer < config_.layers; ++layer) {
      vector.layers.push_back(layer);
      std::vector<float>& row = vector.rows.emplace_back();
      for (int32_t i = 0; i < config_.hidden_size; ++i) {
        const auto hash =
            static_cast<uint32_t>(i + 1) * (0x9e3779b1u * static_cast<uint32_t>(handle));
        row.push_back((hash >> 31) == 0 ? kVectorValue : -kVectorValue);
      }
    }
    LLAMA_STEER_RETURN_IF_ERROR(engine_->PutVector(std::move(vector)));
  }
  return Status::Ok();
}

void EngineDriver::Take(EngineEvent event) {
  const std::lock_guard lock(mutex_);
  if (auto* ready = std::get_if<ReadyEvent>(&event)) {
    ready_ = std::move(*ready);
    loaded_ = true;
  } else if (auto* fatal = std::get_if<FatalEvent>(&event)) {
    failure_ = fatal->status;
  } else if (auto* token = std::get_if<TokenEvent>(&event)) {
    if (batch_ != nullptr) batch_->AddToken(*token);
  } else if (auto* rows = std::get_if<ActivationEvent>(&event)) {
    if (batch_ != nullptr) batch_->captured_bytes += rows->data.size();
  } else if (auto* done = std::get_if<DoneEvent>(&event)) {
    if (!done->status.ok()) failure_ = done->status;
    if (batch_ == nullptr) return;
    ++batch_->done;
    batch_->done_ns = MonotonicNs();
    for (const AppliedSteeringReport& report : done->applied) {
      batch_->steered = batch_->steered && report.generated_tokens > 0;
    }
  }
  changed_.notify_all();
}

EngineRequest EngineDriver::MakeRequest(uint32_t prompt, int32_t prompt_tokens,
                                        int32_t new_tokens) {
  EngineRequest request;
  request.id = next_id_++;
  const auto vocab = static_cast<uint32_t>(config_.vocab_size);
  for (uint32_t i = 0; i < static_cast<uint32_t>(prompt_tokens); ++i) {
    request.prompt_token_ids.push_back((prompt * 7919u + i * 104729u) % vocab);
  }
  request.max_new_tokens = static_cast<uint32_t>(new_tokens);
  request.sampling.temperature = 0.0f;
  request.credits = kEndlessCredits;
  request.capture_credit_bytes = kEndlessBytes;
  return request;
}

void EngineDriver::Steer(EngineRequest& request, int32_t stream, const DecodeBatch& decode) const {
  if (decode.steering == BenchSteering::kNone) return;
  SteeringParams params;
  params.vector = decode.steering == BenchSteering::kDistinct
                      ? static_cast<VectorHandle>(1 + stream % kVectors)
                      : VectorHandle{1};
  if (decode.steering == BenchSteering::kOneLayer) {
    params.layers = {config_.layers / 2};
  } else {
    for (int32_t layer = 0; layer < config_.layers; ++layer) params.layers.push_back(layer);
  }
  if (decode.same_prompts) params.position_begin = decode.context;
  request.steering.push_back(std::move(params));
}

StatusOr<EngineDriver::Batch> EngineDriver::Run(std::vector<EngineRequest> requests) {
  const auto streams = static_cast<int32_t>(requests.size());
  auto batch = std::make_unique<Batch>();
  batch->first_id = requests.front().id;
  batch->streams = streams;
  batch->started.resize(requests.size());
  batch->submit_ns = MonotonicNs();
  {
    const std::lock_guard lock(mutex_);
    batch_ = std::move(batch);
  }
  for (EngineRequest& request : requests) engine_->Submit(std::move(request));
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return batch_->done == streams || !failure_.ok(); });
  const std::unique_ptr<Batch> ended = std::move(batch_);
  if (!failure_.ok()) return std::exchange(failure_, Status::Ok());
  if (!ended->steered) return Status::Internal("a stream that should have been steered was not");
  return std::move(*ended);
}

StatusOr<Timed> EngineDriver::Prefill(int32_t tokens) {
  std::vector<EngineRequest> requests;
  requests.push_back(MakeRequest(next_prompt_++, tokens, 1));
  StatusOr<Batch> batch = Run(std::move(requests));
  if (!batch.ok()) return batch.status();
  return Timed{.seconds = static_cast<double>(batch->first_token_ns - batch->submit_ns) / 1e9,
               .tokens = tokens};
}

StatusOr<Timed> EngineDriver::Capture(int32_t tokens, DType dtype) {
  EngineRequest request = MakeRequest(next_prompt_++, tokens, 1);
  CaptureParams& capture = request.capture.emplace();
  capture.sites = {CaptureSiteKind::kResidPost};
  for (int32_t layer = 0; layer < config_.layers; ++layer) capture.layers.push_back(layer);
  capture.position_end = tokens;
  capture.dtype = dtype;
  const auto value_bytes = static_cast<uint64_t>(DTypeBytes(dtype));
  const uint64_t wanted = static_cast<uint64_t>(tokens) * static_cast<uint64_t>(config_.layers) *
                          static_cast<uint64_t>(config_.hidden_size) * value_bytes;
  std::vector<EngineRequest> requests;
  requests.push_back(std::move(request));
  StatusOr<Batch> batch = Run(std::move(requests));
  if (!batch.ok()) return batch.status();
  if (batch->captured_bytes != wanted) return Status::Internal("not every row was captured");
  return Timed{.seconds = static_cast<double>(batch->done_ns - batch->submit_ns) / 1e9,
               .tokens = tokens,
               .bytes = wanted};
}

StatusOr<Timed> EngineDriver::Decode(const DecodeBatch& decode) {
  std::vector<EngineRequest> requests;
  for (int32_t stream = 0; stream < decode.streams; ++stream) {
    const uint32_t prompt =
        decode.same_prompts ? kSamePrompts + static_cast<uint32_t>(stream) : next_prompt_++;
    requests.push_back(MakeRequest(prompt, decode.context, decode.tokens));
    Steer(requests.back(), stream, decode);
  }
  StatusOr<Batch> batch = Run(std::move(requests));
  if (!batch.ok()) return batch.status();
  if (batch->steady_tokens == 0) return Status::InvalidArgument("too few tokens: no steady part");
  return Timed{.seconds = static_cast<double>(batch->last_token_ns - batch->all_started_ns) / 1e9,
               .tokens = batch->steady_tokens};
}

}  // namespace llama_steer::bench
