// One step: plan, run the model, read back proofs, captures, scores and tokens.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "engine/clock.h"
#include "engine/core.h"
#include "engine/sampling.h"
#include "engine/shadow.h"
#include "engine/steering_proof.h"

namespace llama_steer {

StatusOr<bool> EngineCore::Step() {
  if (!device_fault_.ok()) return device_fault_;  // what the running step drew is not known
  // Gone when the step that runs has been read back; the next one knows nothing of them.
  const Ended ended = std::exchange(ended_, {});
  if (!step_->begun) {
    const StatusOr<bool> planned = PlanStep();
    if (!planned.ok() || !step_->begun) return planned;
  }
  const Status next = BeginNext();
  if (Status awaited = Await(*step_); !awaited.ok()) return device_fault_ = std::move(awaited);
  ReadBackStep();
  step_->begun = step_->awaited = false;
  std::swap(step_, next_);
  Sweep();
  if (!device_fault_.ok()) return device_fault_;
  if (!next.ok()) return next;
  return true;
}

/// Begins a step if there is one; whether something was done.
StatusOr<bool> EngineCore::PlanStep() {
  CollectSequences();
  const StepPlan plan = scheduler_.Plan(sequences_);
  counters_.preemptions += static_cast<uint64_t>(plan.preemptions);
  for (Sequence* sequence : plan.admitted) NoteAdmitted(*sequence);
  if (plan.items.empty()) return plan.preemptions > 0;
  step_->batch.Build(plan);
  LLAMA_STEER_RETURN_IF_ERROR(Begin(*step_));
  return true;
}

void EngineCore::CollectSequences() {
  sequences_.clear();
  for (const auto& [arrival, request] : requests_) {
    for (const auto& sequence : request->sequences) sequences_.push_back(sequence.get());
  }
}

void EngineCore::NoteAdmitted(Sequence& sequence) {
  RequestState& request = *sequence.request;
  const int32_t reused = sequence.computed;
  if (!request.admitted) {
    request.admitted = true;
    request.scheduled_ns = MonotonicNs();
    request.cached_prompt_tokens = static_cast<uint32_t>(reused);
    counters_.prompt_tokens += request.spec.prompt_token_ids.size();
    counters_.cached_prompt_tokens += static_cast<uint64_t>(reused);
  }
  for (int32_t index = 0; index < reused / cache_.block_tokens(); ++index) {
    const PositionRange block = keys_.Positions(index);
    if (block.end <= sequence.proven) continue;
    const auto proof_key = ProofKey(sequence.steerings(), block);
    if (!proof_key) continue;
    const BlockProof* proof =
        cache_.FindProof(sequence.blocks[static_cast<size_t>(index)], *proof_key);
    Status counted = RecordReused(sequence, block, *proof);
    if (!counted.ok()) request.failure = std::move(counted);
  }
  sequence.proven = std::max(sequence.proven, reused);
}

void EngineCore::ReadBackStep() {
  last_step_rows_ = 0;
  for (const BatchItem& item : step_->batch.items()) {
    if (!item.scheduled.sequence->finished) last_step_rows_ += item.scheduled.rows;
  }
  if (last_step_rows_ > 0) ++counters_.steps;
  for (const BatchItem& item : step_->batch.items()) ReadBack(item);
}

void EngineCore::ReadBack(const BatchItem& item) {
  Sequence& sequence = *item.scheduled.sequence;
  RequestState& request = *sequence.request;
  // Another of its sequences failed in this step, or it had ended when the step began to run.
  if (request.done || sequence.finished) return;

  Status status = request.failure;
  if (status.ok()) status = ReadProofs(item);
  if (!status.ok()) return Finish(request, std::move(status));
  sequence.computed = item.positions.end;
  if (sequence.is_shadow) return;
  if (request.evaluating()) {
    status = EvaluateGates(item);
    if (!status.ok()) return Finish(request, std::move(status));
    if (request.evaluating() || !sequence.resident) return;
  } else {
    status = EmitCaptures(item);
  }
  if (status.ok()) status = EmitProbes(item);
  if (status.ok()) status = EmitPromptLogprobs(item);
  if (!status.ok()) return Finish(request, std::move(status));
  if (item.scheduled.draws > 0) return TakeDraws(item);
  if (request.spec.max_new_tokens == 0 && sequence.remaining() == 0) {
    request.prefilled_ns = MonotonicNs();
    for (CompletionState& completion : request.completions) {
      if (completion.finish == FinishReason::kNone) completion.finish = FinishReason::kLength;
    }
    Finish(request, Status::Ok());
  }
}

Status EngineCore::ReadProofs(const BatchItem& item) {
  Sequence& sequence = *item.scheduled.sequence;
  if (sequence.is_shadow || sequence.acts.empty()) {
    CacheFilledBlocks(sequence, item.positions);
    return Status::Ok();
  }
  // Block by block: the proof of the open block is kept until the block is full.
  const int32_t block_tokens = cache_.block_tokens();
  int32_t begin = item.positions.begin;
  for (int32_t p = begin; p < item.positions.end; ++p) {
    const int32_t row = item.first_row + (p - item.positions.begin);
    LLAMA_STEER_RETURN_IF_ERROR(
        RecordComputed(sequence, p, step_->batch.ProofOf(row), block_tokens));
    if ((p + 1) % block_tokens != 0) continue;
    CacheFilledBlocks(sequence, {begin, p + 1});
    begin = p + 1;
  }
  return Status::Ok();
}

void EngineCore::CacheFilledBlocks(Sequence& sequence, PositionRange computed) {
  if (!cache_.enabled()) return;
  const int32_t block_tokens = cache_.block_tokens();
  for (int32_t index = computed.begin / block_tokens; index < computed.end / block_tokens;
       ++index) {
    cache_.Insert(keys_.Key(sequence, index), keys_.Tokens(sequence, index),
                  sequence.blocks[static_cast<size_t>(index)],
                  ProofOfOpenBlock(sequence, keys_.Positions(index)));
  }
}

/// Takes the rows of an evaluation prefill. With the last of them the gates are decided; the
/// sequence then goes on, or begins anew (it is not resident) when the decision changes what has
/// been computed.
Status EngineCore::EvaluateGates(const BatchItem& item) {
  Sequence& sequence = *item.scheduled.sequence;
  RequestState& request = *sequence.request;
  PromptGates& gates = *request.prompt_gates;
  gates.TakeRows(item.captured.size(), step_->batch.StagingOf(item), hidden_size_);
  if (!gates.todo().empty()) return Status::Ok();
  LLAMA_STEER_RETURN_IF_ERROR(gates.Decide(request.steering));
  request.prompt_gates.reset();
  request.prompt_keys.clear();
  ResolvePositions(sequence);
  if (MustRecompute(item)) Restart(sequence);
  return Status::Ok();
}

/// Whether what was computed before the decision is not what the request asks for, or was not
/// captured, scored, probed or compared when it was computed.
bool EngineCore::MustRecompute(const BatchItem& item) const {
  const Sequence& sequence = *item.scheduled.sequence;
  const RequestState& request = *sequence.request;
  const PositionRange computed{0, sequence.computed};
  for (size_t i = 0; i < request.steering.size(); ++i) {
    const bool fired = request.steering[i].decision == GateDecision::kFired;
    if (fired && sequence.steerings().ActsOn(i, computed)) return true;
  }
  if (request.capture && !Intersect(request.capture->todo, computed).empty()) return true;
  if (!Intersect(request.to_score, computed).empty()) return true;
  if (FirstUnread(sequence) < item.positions.begin) return true;
  return item.scheduled.draws > 0 && NeedsShadow(sequence);
}

/// Nothing of the sequence has been counted or sent. Blocks that are still right are found again in
/// the prefix cache.
void EngineCore::Restart(Sequence& sequence) {
  scheduler_.Preempt(sequence);
  sequence.proven = 0;
  std::ranges::fill(sequence.request->prompt_applied, AppliedSum{});
}

Status EngineCore::EmitProbes(const BatchItem& item) {
  Sequence& sequence = *item.scheduled.sequence;
  if (sequence.request->probes.empty()) return Status::Ok();
  StatusOr<std::vector<ProbeScoresEvent>> events =
      TakeScores(sequence, step_->batch.probes(), item.first_row, item.positions);
  if (!events.ok()) return events.status();
  for (ProbeScoresEvent& event : events.value()) sink_(std::move(event));
  return Status::Ok();
}

Status EngineCore::EmitCaptures(const BatchItem& item) {
  if (item.captured.empty()) return Status::Ok();
  RequestState& request = *item.scheduled.sequence->request;
  std::vector<uint32_t> token_ids;
  for (int32_t p = item.captured.begin; p < item.captured.end; ++p) {
    token_ids.push_back(item.scheduled.sequence->token(p));
  }
  const CapturedRows rows{.first_position = item.captured.begin,
                          .token_ids = token_ids,
                          .staging = step_->batch.StagingOf(item),
                          .hidden_size = hidden_size_};
  std::vector<ActivationEvent> events = TakeRows(request.spec.id, *request.capture, rows);
  for (ActivationEvent& event : events) {
    event.completion = item.captured.begin < request.prompt_tokens() ? kPromptOnly : 0;
  }
  LLAMA_STEER_RETURN_IF_ERROR(EmitActivations(request, rows, std::move(events)));
  return request.capture->todo.empty() ? EmitMeans(request) : Status::Ok();
}

Status EngineCore::EmitPromptLogprobs(const BatchItem& item) {
  if (item.scored.empty()) return Status::Ok();
  RequestState& request = *item.scheduled.sequence->request;
  PromptLogprobsEvent event;
  event.id = request.spec.id;
  event.first_position = item.scored.begin + 1;
  for (int32_t i = 0; i < item.scored.size(); ++i) {
    SampleResult& result = step_->batch.results()[item.first_score + static_cast<size_t>(i)];
    if (result.nonfinite) {
      ++counters_.nonfinite_rows;
      return Status::Internal("non-finite logits at position " +
                              std::to_string(item.scored.begin + i));
    }
    const auto position = static_cast<size_t>(event.first_position + i);
    event.tokens.push_back({.token_id = request.spec.prompt_token_ids[position],
                            .logprob = result.logprob,
                            .top = std::move(result.top)});
  }
  request.to_score.begin = item.scored.end;
  sink_(std::move(event));
  return Status::Ok();
}

void EngineCore::TakeDraws(const BatchItem& item) {
  Sequence& sequence = *item.scheduled.sequence;
  RequestState& request = *sequence.request;
  if (request.prefilled_ns == 0) {
    request.prefilled_ns = MonotonicNs();
    request.first_token_ns = request.prefilled_ns;
  }
  std::vector<Sequence*> drawn = {&sequence};
  if (sequence.completion == kPromptOnly) drawn = Fork(sequence, item.scheduled.draws);
  // Before any sequence of the request can end and give the source of a copy away.
  CopyBlocks();
  for (size_t i = 0; i < drawn.size() && !request.done; ++i) {
    TakeToken(*drawn[i], step_->batch.results()[item.first_draw + i]);
  }
}

Status EngineCore::CheckResult(const Sequence& sequence, const SampleResult& result) const {
  const auto refuse = [&sequence](const char* what) {
    return Status::Internal("non-finite " + std::string(what) + " at position " +
                            std::to_string(sequence.context() - 1));
  };
  if (result.nonfinite) return refuse("logits");
  if (NeedsShadow(sequence) && std::isnan(result.kl)) return refuse("unsteered logits");
  return Status::Ok();
}

void EngineCore::TakeToken(Sequence& sequence, SampleResult& result) {
  RequestState& request = *sequence.request;
  Status status = CheckResult(sequence, result);
  if (!status.ok()) {
    ++counters_.nonfinite_rows;
    return Finish(request, std::move(status));
  }
  TokenEvent event;
  if (request.spec.compare_unsteered) {
    event.kl_to_unsteered = NeedsShadow(sequence) ? result.kl : 0.0;
  }
  CompletionState& completion = request.completions[static_cast<size_t>(sequence.completion)];
  sequence.generated.push_back(result.token_id);
  if (sequence.shadow) sequence.shadow->generated.push_back(result.token_id);
  AddSeenToken(sequence, result.token_id);
  ReadLastToken(sequence, token_texts_);
  ++completion.tokens;
  ++counters_.generated_tokens;
  completion.finish = FinishOf(request.spec, result.token_id, completion.tokens);

  event.id = request.spec.id;
  event.completion = static_cast<uint32_t>(sequence.completion);
  event.token = {
      .token_id = result.token_id, .logprob = result.logprob, .top = std::move(result.top)};
  event.has_logprob = request.spec.sampling.logprobs;
  event.finish = completion.finish;
  --request.credits;
  sink_(std::move(event));

  if (completion.finish == FinishReason::kNone) return;
  Retire(sequence);
  if (request.live_completions() == 0) Finish(request, Status::Ok());
}

}  // namespace llama_steer
