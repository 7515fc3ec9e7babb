#include "engine/core.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/clock.h"
#include "engine/sampling.h"
#include "engine/steering_proof.h"

namespace llama_steer {
namespace {

int32_t MaxRunning(const EngineOptions& options) {
  // A running sequence gets a row each step, so there cannot be more of them than rows.
  return std::clamp(options.max_running_sequences, 1, std::max(options.max_batch_tokens, 1));
}

int64_t CaptureRows(const EngineOptions& options) {
  const auto row_bytes = static_cast<uint64_t>(options.config.hidden_size) * sizeof(float);
  return static_cast<int64_t>(
      std::min<uint64_t>(options.capture_staging_bytes / row_bytes, INT32_MAX));
}

StepLimits StepLimitsOf(const EngineOptions& options) {
  return {.max_rows = std::max(options.max_batch_tokens, 1),
          .max_logit_rows = MaxLogitRows(options),
          .max_running = MaxRunning(options),
          .max_capture_rows = CaptureRows(options)};
}

BatchLimits BatchLimitsOf(const EngineOptions& options) {
  return {.layers = options.config.layers,
          .hidden_size = options.config.hidden_size,
          .max_capture_rows = CaptureRows(options)};
}

RequestLimits RequestLimitsOf(const EngineOptions& options, const KvCacheShape& kv) {
  return {.layers = options.config.layers,
          .vocab_size = options.config.vocab_size,
          .context_tokens = options.config.context_tokens,
          .kv_blocks = kv.blocks,
          .kv_block_tokens = kv.block_tokens,
          .max_completions = std::max(options.max_running_sequences, 1),
          .max_steerings = options.max_steerings_per_request,
          .max_rows = MaxRunning(options)};
}

}  // namespace

int32_t MaxLogitRows(const EngineOptions& options) {
  return MaxRunning(options) + kScoreRowsPerStep;
}

EngineCore::EngineCore(const EngineOptions& options, ModelRunner& runner, const EventSink& sink)
    : runner_(runner),
      sink_(sink),
      limits_(RequestLimitsOf(options, runner.info().kv)),
      hidden_size_(options.config.hidden_size),
      keys_(limits_.kv_block_tokens, limits_.layers - 1),
      cache_(limits_.kv_blocks, limits_.kv_block_tokens, options.prefix_cache),
      vectors_(runner, hidden_size_),
      adapters_(runner),
      scheduler_(StepLimitsOf(options), cache_, keys_),
      capture_area_(BatchLimitsOf(options)),
      steps_{{{.batch = {BatchLimitsOf(options), capture_area_}},
              {.batch = {BatchLimitsOf(options), capture_area_}}}},
      lens_(runner, std::min(std::max(options.max_batch_tokens, 1), MaxLogitRows(options))),
      max_capture_rows_(CaptureRows(options)),
      token_bytes_(options.token_bytes),
      token_offsets_(options.token_offsets),
      token_texts_(token_bytes_, token_offsets_) {}

void EngineCore::Submit(EngineRequest request, uint64_t submit_ns) {
  if (by_id_.contains(request.id)) {
    return Refuse(request, Status::InvalidArgument("request id " + std::to_string(request.id) +
                                                   " is in use"));
  }
  StatusOr<std::unique_ptr<RequestState>> admitted = Admit(request);
  if (!admitted.ok()) return Refuse(request, admitted.status());
  std::unique_ptr<RequestState> state = std::move(admitted.value());
  state->arrival = next_arrival_++;
  state->submit_ns = submit_ns;
  by_id_[state->spec.id] = state.get();
  requests_[state->arrival] = std::move(state);
}

void EngineCore::Refuse(const EngineRequest& request, Status status) const {
  sink_(RefusalOf(request, std::move(status)));
}

DoneEvent RefusalOf(const EngineRequest& request, Status status) {
  DoneEvent done;
  done.id = request.id;
  done.status = std::move(status);
  done.prompt_tokens = static_cast<uint32_t>(request.prompt_token_ids.size());
  return done;
}

void EngineCore::Cancel(RequestId id, int32_t completion) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  RequestState& request = *found->second;
  if (completion < 0) {
    Finish(request, {StatusCode::kCancelled, "cancelled"});
    return Sweep();
  }
  if (static_cast<size_t>(completion) >= request.completions.size()) return;
  CompletionState& state = request.completions[static_cast<size_t>(completion)];
  if (state.finish != FinishReason::kNone) return;
  state.finish = FinishReason::kCancelled;
  for (const auto& sequence : request.sequences) {
    if (sequence->completion == completion) Retire(*sequence);
  }
  if (request.live_completions() == 0) Finish(request, Status::Ok());
  Sweep();
}

void EngineCore::Grant(RequestId id, uint32_t credits, uint64_t capture_bytes) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  found->second->credits += credits;
  found->second->capture_credit_bytes += static_cast<int64_t>(capture_bytes);
}

uint64_t EngineCore::ExpireDeadlines(uint64_t now_ns) {
  uint64_t next = 0;
  for (const auto& [arrival, request] : requests_) {
    const uint64_t deadline = request->spec.deadline_ns;
    if (deadline == 0) continue;
    if (deadline <= now_ns) {
      Finish(*request, {StatusCode::kDeadlineExceeded, "the deadline has passed"});
    } else if (next == 0 || deadline < next) {
      next = deadline;
    }
  }
  Sweep();
  return next;
}

void EngineCore::EndAll(const Status& status) {
  for (const auto& [arrival, request] : requests_) Finish(*request, status);
  (void)Settle();
  Sweep();
}

void EngineCore::Retire(Sequence& sequence) {
  if (sequence.finished) return;
  cache_.ReleaseAll(sequence.blocks);
  if (sequence.shadow) cache_.ReleaseAll(sequence.shadow->blocks);
  sequence.finished = true;
  sequence.resident = false;
}

void EngineCore::Finish(RequestState& request, Status status) {
  if (request.done) return;
  request.done = true;
  if (status.ok()) status = EmitMeans(request);
  for (const auto& sequence : request.sequences) Retire(*sequence);

  const uint64_t now_ns = MonotonicNs();
  DoneEvent done;
  done.id = request.spec.id;
  for (CompletionState& completion : request.completions) {
    if (completion.finish == FinishReason::kNone && status.code() == StatusCode::kCancelled) {
      completion.finish = FinishReason::kCancelled;
    }
    done.finish_reasons.push_back(completion.finish);
    done.completion_tokens += completion.tokens;
  }
  done.status = std::move(status);
  done.prompt_tokens = static_cast<uint32_t>(request.prompt_tokens());
  done.cached_prompt_tokens = request.cached_prompt_tokens;
  done.applied = ReportApplied(request);
  for (const AppliedSteeringReport& report : done.applied) {
    counters_.gate_evaluations += report.gate_evaluations;
    counters_.gate_fired += report.gate_fired;
  }
  const uint64_t scheduled_ns = request.scheduled_ns != 0 ? request.scheduled_ns : now_ns;
  const uint64_t prefilled_ns = request.prefilled_ns != 0 ? request.prefilled_ns : now_ns;
  done.timings.queue_ns = scheduled_ns - request.submit_ns;
  done.timings.prefill_ns = prefilled_ns - scheduled_ns;
  done.timings.decode_ns = now_ns - prefilled_ns;
  if (request.first_token_ns != 0) {
    done.timings.time_to_first_token_ns = request.first_token_ns - request.submit_ns;
  }
  by_id_.erase(request.spec.id);
  sink_(std::move(done));
}

Status EngineCore::EmitMeans(RequestState& request) {
  if (!request.capture) return Status::Ok();
  std::vector<ActivationEvent> events = TakeMeans(request.spec.id, *request.capture, hidden_size_);
  for (ActivationEvent& event : events) {
    event.completion = event.positions.back() < request.prompt_tokens() ? kPromptOnly : 0;
  }
  if (events.empty()) return Status::Ok();
  const CapturedRows rows{.first_position = request.capture->first_position,
                          .token_ids = {},
                          .staging = request.capture->means.data(),
                          .hidden_size = hidden_size_};
  return EmitActivations(request, rows, std::move(events));
}

Status EngineCore::EmitActivations(RequestState& request, const CapturedRows& rows,
                                   std::vector<ActivationEvent> events) {
  if (device_fault_.ok()) device_fault_ = Settle();
  if (device_fault_.ok()) device_fault_ = lens_.Read(*request.capture, rows, events);
  if (!device_fault_.ok()) return Status::Internal("device fault: " + device_fault_.message());
  for (ActivationEvent& event : events) {
    for (size_t i = 0; i < event.lens.size(); ++i) {
      if (!event.lens[i].empty()) continue;
      ++counters_.nonfinite_rows;
      return Status::Internal("non-finite logits of the lens at layer " +
                              std::to_string(event.layer) + ", position " +
                              std::to_string(event.positions[i]));
    }
    --request.credits;
    request.capture_credit_bytes -= EventBytes(event);
    counters_.capture_bytes += event.data.size();
    sink_(std::move(event));
  }
  return Status::Ok();
}

void EngineCore::Sweep() {
  for (auto entry = requests_.begin(); entry != requests_.end();) {
    const auto next = std::next(entry);
    if (entry->second->done) {
      ended_.requests.push_back(std::move(entry->second));
      requests_.erase(entry);
    }
    entry = next;
  }
  for (const auto& [arrival, request] : requests_) {
    std::erase_if(request->sequences, [this](auto& sequence) {
      if (!sequence->finished) return false;
      ended_.sequences.push_back(std::move(sequence));
      return true;
    });
  }
  if (!step_->begun) ended_ = {};
}

void EngineCore::ReadStats(EngineStats& stats) const {
  stats = counters_;
  for (const auto& [arrival, request] : requests_) {
    const bool running =
        std::ranges::any_of(request->sequences, [](const auto& s) { return s->resident; });
    if (running) {
      ++stats.running_requests;
    } else {
      ++stats.waiting_requests;
      stats.waiting_prompt_tokens += request->spec.prompt_token_ids.size();
    }
  }
  const KvBlocks& blocks = cache_.blocks();
  stats.kv_blocks = static_cast<uint32_t>(blocks.total());
  stats.kv_blocks_used = static_cast<uint32_t>(blocks.used());
  stats.kv_blocks_cached = static_cast<uint32_t>(blocks.parked());
  stats.resident_vectors = vectors_.size();
  stats.resident_vector_bytes = vectors_.size_bytes();
  stats.resident_adapters = adapters_.size();
  stats.resident_adapter_bytes = adapters_.size_bytes();
}

}  // namespace llama_steer
