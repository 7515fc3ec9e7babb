// One step: plan, run the model, read back proofs, captures, scores and tokens.
#include <algorithm>
#include <string>
#include <utility>

#include "engine/clock.h"
#include "engine/core.h"
#include "engine/sampling.h"
#include "engine/steering_proof.h"

namespace llama_steer {

StatusOr<bool> EngineCore::Step() {
  CollectSequences();
  const StepPlan plan = scheduler_.Plan(sequences_);
  counters_.preemptions += static_cast<uint64_t>(plan.preemptions);
  for (Sequence* sequence : plan.admitted) NoteAdmitted(*sequence);
  if (plan.items.empty()) return plan.preemptions > 0;

  batch_.Build(plan);
  LLAMA_STEER_RETURN_IF_ERROR(RunModel());
  ++counters_.steps;
  last_step_rows_ = plan.rows;
  for (const BatchItem& item : batch_.items()) ReadBack(item);
  Sweep();
  if (!device_fault_.ok()) return device_fault_;
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
    const auto proof_key = ProofKey(request.steering, block);
    if (!proof_key) continue;
    const BlockProof* proof =
        cache_.FindProof(sequence.blocks[static_cast<size_t>(index)], *proof_key);
    Status counted = RecordReused(sequence, block, *proof);
    if (!counted.ok()) request.failure = std::move(counted);
  }
  sequence.proven = std::max(sequence.proven, reused);
}

Status EngineCore::RunModel() {
  LLAMA_STEER_RETURN_IF_ERROR(runner_.Forward(batch_.forward()));
  if (!batch_.sample_rows().empty()) {
    LLAMA_STEER_RETURN_IF_ERROR(runner_.Sample(batch_.sample_rows(), batch_.results()));
  }
  return runner_.Sync();
}

void EngineCore::ReadBack(const BatchItem& item) {
  Sequence& sequence = *item.scheduled.sequence;
  RequestState& request = *sequence.request;
  if (request.done) return;  // another of its sequences failed in this step

  Status status = request.failure;
  if (status.ok()) status = ReadProofs(item);
  if (status.ok()) {
    sequence.computed = item.positions.end;
    status = EmitCaptures(item);
    if (status.ok()) status = EmitPromptLogprobs(item);
  }
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
  if (sequence.request->steering.empty()) {
    CacheFilledBlocks(sequence, item.positions);
    return Status::Ok();
  }
  // Block by block: the proof of the open block is kept until the block is full.
  const int32_t block_tokens = cache_.block_tokens();
  int32_t begin = item.positions.begin;
  for (int32_t p = begin; p < item.positions.end; ++p) {
    const int32_t row = item.first_row + (p - item.positions.begin);
    LLAMA_STEER_RETURN_IF_ERROR(RecordComputed(sequence, p, batch_.ProofOf(row), block_tokens));
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

Status EngineCore::EmitCaptures(const BatchItem& item) {
  if (item.captured.empty()) return Status::Ok();
  RequestState& request = *item.scheduled.sequence->request;
  std::vector<uint32_t> token_ids;
  for (int32_t p = item.captured.begin; p < item.captured.end; ++p) {
    token_ids.push_back(item.scheduled.sequence->token(p));
  }
  const CapturedRows rows{.first_position = item.captured.begin,
                          .token_ids = token_ids,
                          .staging = batch_.StagingOf(item),
                          .hidden_size = hidden_size_};
  LLAMA_STEER_RETURN_IF_ERROR(
      EmitActivations(request, rows, TakeRows(request.spec.id, *request.capture, rows)));
  return request.capture->todo.empty() ? EmitMeans(request) : Status::Ok();
}

Status EngineCore::EmitPromptLogprobs(const BatchItem& item) {
  if (item.scored.empty()) return Status::Ok();
  RequestState& request = *item.scheduled.sequence->request;
  PromptLogprobsEvent event;
  event.id = request.spec.id;
  event.first_position = item.scored.begin + 1;
  for (int32_t i = 0; i < item.scored.size(); ++i) {
    SampleResult& result = batch_.results()[item.first_score + static_cast<size_t>(i)];
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
    TakeToken(*drawn[i], batch_.results()[item.first_draw + i]);
  }
}

void EngineCore::TakeToken(Sequence& sequence, SampleResult& result) {
  RequestState& request = *sequence.request;
  if (result.nonfinite) {
    ++counters_.nonfinite_rows;
    return Finish(request, Status::Internal("non-finite logits at position " +
                                            std::to_string(sequence.context() - 1)));
  }
  CompletionState& completion = request.completions[static_cast<size_t>(sequence.completion)];
  sequence.generated.push_back(result.token_id);
  AddSeenToken(sequence, result.token_id);
  ++completion.tokens;
  ++counters_.generated_tokens;
  completion.finish = FinishOf(request.spec, result.token_id, completion.tokens);

  TokenEvent event;
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

void EngineCore::CopyBlocks() {
  if (block_copies_.empty()) return;
  Status status = runner_.CopyKvBlocks(block_copies_);
  if (status.ok()) status = runner_.Sync();
  if (!status.ok()) device_fault_ = std::move(status);
  block_copies_.clear();
}

/// The prompt's sequence becomes one sequence for each live completion. Returns the first `draws`
/// of them; the others had no credit and draw their first token in a later step.
std::vector<Sequence*> EngineCore::Fork(Sequence& prompt, int32_t draws) {
  RequestState& request = *prompt.request;
  std::vector<Sequence*> drawn;
  for (size_t c = 0; c < request.completions.size(); ++c) {
    if (request.completions[c].finish != FinishReason::kNone) continue;
    const auto completion = static_cast<int32_t>(c);
    if (drawn.empty()) {
      prompt.completion = completion;
      drawn.push_back(&prompt);
      continue;
    }
    const bool draws_now = static_cast<int32_t>(drawn.size()) < draws;
    request.sequences.push_back(draws_now ? CopySequence(prompt, completion)
                                          : LateSequence(prompt, completion));
    if (draws_now) drawn.push_back(request.sequences.back().get());
  }
  return drawn;
}

/// Shares the full blocks and copies the one that is still being filled. Without room for the copy
/// the sequence waits and is computed again.
std::unique_ptr<Sequence> EngineCore::CopySequence(const Sequence& prompt, int32_t completion) {
  auto copy = std::make_unique<Sequence>();
  copy->request = prompt.request;
  copy->completion = completion;
  copy->proven = prompt.proven;
  copy->seen = prompt.seen;
  const auto full = static_cast<size_t>(prompt.computed / cache_.block_tokens());
  const bool has_tail = prompt.computed % cache_.block_tokens() != 0;
  const int32_t tail = has_tail ? cache_.Allocate() : kNoBlock;
  if (has_tail && tail == kNoBlock) return copy;
  for (size_t i = 0; i < full; ++i) {
    cache_.Retain(prompt.blocks[i]);
    copy->blocks.push_back(prompt.blocks[i]);
  }
  if (has_tail) {
    block_copies_.push_back({.source = prompt.blocks[full], .destination = tail});
    copy->blocks.push_back(tail);
    copy->open_proof = prompt.open_proof;
  }
  copy->computed = prompt.computed;
  copy->resident = true;
  return copy;
}

/// Shares the full blocks before the last prompt token, whose row it has to compute itself.
std::unique_ptr<Sequence> EngineCore::LateSequence(const Sequence& prompt, int32_t completion) {
  auto late = std::make_unique<Sequence>();
  late->request = prompt.request;
  late->completion = completion;
  late->proven = prompt.proven;
  late->seen = prompt.seen;
  const int32_t shared = (prompt.request->prompt_tokens() - 1) / cache_.block_tokens();
  for (int32_t i = 0; i < shared; ++i) {
    const int32_t block = prompt.blocks[static_cast<size_t>(i)];
    cache_.Retain(block);
    late->blocks.push_back(block);
  }
  late->computed = shared * cache_.block_tokens();
  late->resident = true;
  return late;
}

}  // namespace llama_steer
