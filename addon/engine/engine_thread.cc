#include "engine/engine_thread.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <string>
#include <type_traits>
#include <utility>

#include "engine/clock.h"

namespace llama_steer {
namespace {

constexpr size_t kMaxRecentSteps = 4096;

ReadyEvent ReadyOf(const ModelInfo& info) {
  return {.device = info.device,
          .device_fallback = info.device_fallback,
          .weight_dtype = info.weight_dtype,
          .kv_dtype = info.kv.dtype == DType::kF32 ? "f32" : "bf16",
          .weight_bytes = info.weight_bytes,
          .kv_bytes = info.kv_bytes,
          .kv_blocks = info.kv.blocks,
          .kv_block_tokens = info.kv.block_tokens};
}

}  // namespace

EngineThread::EngineThread(EngineOptions options, EventSink sink, RunnerFactory factory)
    : options_(std::move(options)), sink_(std::move(sink)) {
  thread_ = std::thread([this, factory = std::move(factory)] { Run(factory); });
}

// -- any thread --

Status EngineThread::Unavailable() const {
  switch (state_) {
    case State::kLoading:
      return {StatusCode::kUnavailable, "the model is still loading"};
    case State::kReady:
      return Status::Ok();
    case State::kClosed:
      return {StatusCode::kUnavailable, "the engine is closed"};
    case State::kFailed:
      return {StatusCode::kUnavailable, "the engine has failed"};
  }
  return Status::Ok();
}

void EngineThread::Submit(EngineRequest request) {
  Status refusal;
  {
    const std::lock_guard lock(mutex_);
    refusal = Unavailable();
    if (refusal.ok()) {
      const uint64_t now_ns = MonotonicNs();
      if (busy_since_ns_ == 0) busy_since_ns_ = now_ns;
      inbox_.emplace_back(SubmitCommand{std::move(request), now_ns});
    }
  }
  if (!refusal.ok()) return sink_(RefusalOf(request, std::move(refusal)));
  wake_.notify_one();
}

void EngineThread::Send(Command command) {
  {
    const std::lock_guard lock(mutex_);
    if (!Unavailable().ok()) return;
    if (busy_since_ns_ == 0) busy_since_ns_ = MonotonicNs();
    inbox_.push_back(std::move(command));
  }
  wake_.notify_one();
}

void EngineThread::Cancel(RequestId id, int32_t completion) {
  Send(CancelCommand{.id = id, .completion = completion});
}

void EngineThread::Grant(RequestId id, uint32_t credits, uint64_t capture_bytes) {
  Send(GrantCommand{.id = id, .credits = credits, .capture_bytes = capture_bytes});
}

Status EngineThread::PutVector(VectorRows vector) {
  LLAMA_STEER_RETURN_IF_ERROR(
      CheckVectorRows(vector, options_.config.layers, options_.config.hidden_size));
  {
    const std::lock_guard lock(mutex_);
    LLAMA_STEER_RETURN_IF_ERROR(Unavailable());
    const auto [position, inserted] = handles_.try_emplace(vector.handle, vector.digest);
    if (!inserted) {
      if (position->second == vector.digest) return Status::Ok();
      return Status::FailedPrecondition("vector handle " + std::to_string(vector.handle) +
                                        " holds another vector");
    }
    inbox_.emplace_back(std::move(vector));
  }
  wake_.notify_one();
  return Status::Ok();
}

void EngineThread::DropVector(VectorHandle handle) {
  {
    const std::lock_guard lock(mutex_);
    handles_.erase(handle);
  }
  Send(DropCommand{.handle = handle});
}

Status EngineThread::PutAdapter(AdapterFiles adapter) {
  const auto [handle, digest] = std::pair(adapter.handle, adapter.digest);
  if (handle == kNoAdapter) return Status::InvalidArgument("adapter 0 is the base model");
  StatusOr<MappedLora> lora = MapLora(options_.config, std::move(adapter.lora));
  if (!lora.ok()) return lora.status();
  {
    const std::lock_guard lock(mutex_);
    LLAMA_STEER_RETURN_IF_ERROR(Unavailable());
    const auto found = adapters_.find(handle);
    if (found != adapters_.end()) {
      if (found->second.digest == digest) return Status::Ok();
      return Status::FailedPrecondition("adapter handle " + std::to_string(handle) +
                                        " holds another adapter");
    }
    LLAMA_STEER_RETURN_IF_ERROR(CheckAdapterRoom(lora->bytes()));
    adapters_[handle] = {digest, lora->bytes()};
    inbox_.emplace_back(PutAdapterCommand{handle, digest, std::move(lora).value()});
  }
  wake_.notify_one();
  return Status::Ok();
}

Status EngineThread::CheckAdapterRoom(uint64_t bytes) const {
  uint64_t held = 0;
  for (const auto& [handle, adapter] : adapters_) held += adapter.bytes;
  if (bytes <= options_.max_adapter_bytes && held <= options_.max_adapter_bytes - bytes) {
    return Status::Ok();
  }
  return Status::ResourceExhausted("the adapter has " + std::to_string(bytes) + " bytes; " +
                                   std::to_string(held) + " of " +
                                   std::to_string(options_.max_adapter_bytes) + " are in use");
}

void EngineThread::DropAdapter(AdapterHandle handle) {
  {
    const std::lock_guard lock(mutex_);
    adapters_.erase(handle);
  }
  Send(DropAdapterCommand{.handle = handle});
}

EngineStats EngineThread::Stats() {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats_.recent_batch_tokens.clear();
  CountInbox(stats);
  if (busy_since_ns_ != 0) {
    stats.last_step_age_seconds = static_cast<double>(MonotonicNs() - busy_since_ns_) * 1e-9;
  }
  return stats;
}

void EngineThread::CountInbox(EngineStats& stats) const {
  for (const Command& command : inbox_) {
    const auto* submit = std::get_if<SubmitCommand>(&command);
    if (submit == nullptr) continue;
    ++stats.waiting_requests;
    stats.waiting_prompt_tokens += submit->request.prompt_token_ids.size();
  }
}

void EngineThread::Close() {
  {
    const std::lock_guard lock(mutex_);
    if (state_ != State::kFailed) state_ = State::kClosed;
  }
  wake_.notify_one();
  const std::lock_guard lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

// -- the engine thread --

void EngineThread::Run(const RunnerFactory& factory) {
  StatusOr<std::unique_ptr<ModelRunner>> runner = MakeRunner(factory);
  if (!runner.ok()) {
    if (IsClosed()) return RefuseInbox({StatusCode::kCancelled, "the engine was closed"});
    return Fail(runner.status());
  }
  EngineCore core(options_, **runner, sink_);
  if (BecomeReady(core)) sink_(ReadyOf((*runner)->info()));
  const Status fault = Serve(core);
  if (fault.ok()) return RefuseInbox({StatusCode::kCancelled, "the engine was closed"});
  Fail(fault);
}

StatusOr<std::unique_ptr<ModelRunner>> EngineThread::MakeRunner(const RunnerFactory& factory) {
  // Memory that runs out inside the standard library throws.
  try {
    return factory([this](uint64_t done_bytes, uint64_t total_bytes) {
      sink_(LoadProgressEvent{.done_bytes = done_bytes, .total_bytes = total_bytes});
      return !IsClosed();
    });
  } catch (const std::exception& error) {
    return Status(StatusCode::kResourceExhausted,
                  std::string("the model cannot be loaded: ") + error.what());
  }
}

bool EngineThread::IsClosed() {
  const std::lock_guard lock(mutex_);
  return state_ == State::kClosed;
}

bool EngineThread::BecomeReady(const EngineCore& core) {
  const std::lock_guard lock(mutex_);
  core.ReadStats(stats_);
  if (state_ != State::kLoading) return false;
  state_ = State::kReady;
  return true;
}

Status EngineThread::Serve(EngineCore& core) {
  Status fault;
  try {  // as in MakeRunner()
    fault = Loop(core);
  } catch (const std::exception& error) {
    fault = Status::Internal(std::string("the engine thread stopped: ") + error.what());
  }
  core.EndAll(fault.ok() ? Status{StatusCode::kCancelled, "the engine was closed"}
                         : Status::Internal("device fault: " + fault.message()));
  PublishStats(core, 0);
  return fault;
}

Status EngineThread::Loop(EngineCore& core) {
  std::vector<Command> commands;
  while (TakeInbox(commands)) {
    Apply(core, commands);
    const uint64_t deadline_ns = core.ExpireDeadlines(MonotonicNs());
    const StatusOr<bool> stepped = core.Step();
    if (!stepped.ok()) return stepped.status();
    PublishStats(core, stepped.value() ? core.last_step_rows() : 0);
    if (!stepped.value()) Park(deadline_ns);
  }
  return Status::Ok();
}

bool EngineThread::TakeInbox(std::vector<Command>& commands) {
  commands.clear();
  const std::lock_guard lock(mutex_);
  if (state_ == State::kClosed) return false;
  // Until the step that takes them has ended and tells better.
  CountInbox(stats_);
  commands.swap(inbox_);
  busy_since_ns_ = MonotonicNs();
  return true;
}

void EngineThread::Apply(EngineCore& core, std::vector<Command>& commands) {
  for (Command& command : commands) {
    std::visit(
        [&core](auto& value) {
          using T = std::decay_t<decltype(value)>;
          if constexpr (std::is_same_v<T, SubmitCommand>) {
            core.Submit(std::move(value.request), value.submit_ns);
          } else if constexpr (std::is_same_v<T, CancelCommand>) {
            core.Cancel(value.id, value.completion);
          } else if constexpr (std::is_same_v<T, GrantCommand>) {
            core.Grant(value.id, value.credits, value.capture_bytes);
          } else if constexpr (std::is_same_v<T, VectorRows>) {
            core.PutVector(value);
          } else if constexpr (std::is_same_v<T, PutAdapterCommand>) {
            core.PutAdapter(value.handle, value.digest, value.lora);
          } else if constexpr (std::is_same_v<T, DropAdapterCommand>) {
            core.DropAdapter(value.handle);
          } else {
            core.DropVector(value.handle);
          }
        },
        command);
  }
}

void EngineThread::Park(uint64_t deadline_ns) {
  std::unique_lock lock(mutex_);
  const auto called = [this] { return state_ == State::kClosed || !inbox_.empty(); };
  if (called()) return;
  busy_since_ns_ = 0;
  if (deadline_ns == 0) return wake_.wait(lock, called);
  const std::chrono::nanoseconds deadline(deadline_ns);
  (void)wake_.wait_until(lock, std::chrono::steady_clock::time_point(deadline), called);
}

void EngineThread::PublishStats(const EngineCore& core, int32_t step_rows) {
  EngineStats now;
  core.ReadStats(now);
  const std::lock_guard lock(mutex_);
  now.recent_batch_tokens = std::move(stats_.recent_batch_tokens);
  if (step_rows > 0) {
    auto& recent = now.recent_batch_tokens;
    if (recent.size() == kMaxRecentSteps) recent.erase(recent.begin());
    recent.push_back(static_cast<uint32_t>(step_rows));
  }
  stats_ = std::move(now);
}

void EngineThread::RefuseInbox(const Status& status) {
  std::vector<Command> commands;
  {
    const std::lock_guard lock(mutex_);
    commands.swap(inbox_);
    busy_since_ns_ = 0;
  }
  for (const Command& command : commands) {
    if (const auto* submit = std::get_if<SubmitCommand>(&command)) {
      sink_(RefusalOf(submit->request, status));
    }
  }
}

void EngineThread::Fail(const Status& status) {
  {
    const std::lock_guard lock(mutex_);
    state_ = State::kFailed;
  }
  RefuseInbox(Status::Internal("device fault: " + status.message()));
  sink_(FatalEvent{.status = status});
}

}  // namespace llama_steer
