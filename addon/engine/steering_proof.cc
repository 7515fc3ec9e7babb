#include "engine/steering_proof.h"

#include <cmath>
#include <optional>
#include <string>

namespace llama_steer {
namespace {

std::string At(size_t steering, int32_t position) {
  return "steering[" + std::to_string(steering) + "] at position " + std::to_string(position);
}

/// Whether the steering acts on a token that it is meant for.
StatusOr<bool> Acts(const SteeringEntry& entry, size_t steering, int32_t position,
                    const SteerProof& proof) {
  if (!entry.gated_by_token()) return true;
  if (proof.gate == GateState::kNotEvaluated) {
    return Status::Internal(At(steering, position) + ": its gate was not evaluated");
  }
  if (!std::isfinite(proof.gate_score)) {
    return Status::Internal(At(steering, position) + ": the score of its gate is not finite");
  }
  return proof.gate == GateState::kOpen;
}

Status Count(Sequence& sequence, size_t steering, int32_t position, const SteerProof& proof) {
  RequestState& request = *sequence.request;
  const SteeringEntry& entry = request.steering[steering];
  const StatusOr<bool> acts = Acts(entry, steering, position, proof);
  if (!acts.ok()) return acts.status();
  const size_t layers = acts.value() ? entry.params.layers.size() : 0;
  if (proof.layers_acted != layers) {
    return Status::Internal(At(steering, position) + ": it acted in " +
                            std::to_string(proof.layers_acted) + " layers instead of " +
                            std::to_string(layers));
  }
  const bool in_prompt = position < request.prompt_tokens();
  auto& sums = in_prompt ? request.prompt_applied
                         : request.completions[static_cast<size_t>(sequence.completion)].applied;
  AppliedSum& sum = sums[steering];
  if (entry.gated_by_token()) {
    sum.gate_evaluations += 1;
    sum.gate_fired += acts.value() ? 1 : 0;
  }
  if (!acts.value()) return Status::Ok();
  sum.tokens += 1;
  const int32_t continuation = request.spec.proof_prompt_tokens;
  if (in_prompt && continuation > 0 && position >= continuation) sum.continuation_tokens += 1;
  sum.rows += proof.layers_acted;
  sum.ratio += static_cast<double>(proof.delta_ratio_sum);
  return Status::Ok();
}

/// A gate on the prompt is evaluated once.
void AddPromptGate(const SteeringEntry& entry, AppliedSteeringReport& report) {
  const bool fired = entry.decision == GateDecision::kFired;
  if (!fired && entry.decision != GateDecision::kNotFired) return;
  report.gate_evaluations = 1;
  report.gate_fired = fired ? 1 : 0;
}

void AddSum(const AppliedSum& sum, AppliedSteeringReport& report, double& ratio) {
  report.steered_rows += sum.rows;
  report.gate_evaluations += sum.gate_evaluations;
  report.gate_fired += sum.gate_fired;
  ratio += sum.ratio;
}

}  // namespace

Status RecordComputed(Sequence& sequence, int32_t position, std::span<const SteerProof> proof,
                      int32_t block_tokens) {
  const auto stride = static_cast<size_t>(block_tokens);
  sequence.open_proof.resize(sequence.acts.size() * stride);
  const auto offset = static_cast<size_t>(position % block_tokens);
  for (size_t i = 0; i < sequence.acts.size(); ++i) {
    const bool meant = sequence.acts[i].contains(position);
    const SteerProof reported = meant && !proof.empty() ? proof[i] : SteerProof{};
    sequence.open_proof[i * stride + offset] = reported;
    if (meant && position >= sequence.proven) {
      LLAMA_STEER_RETURN_IF_ERROR(Count(sequence, i, position, reported));
    }
  }
  if (position >= sequence.proven) sequence.proven = position + 1;
  return Status::Ok();
}

Status RecordReused(Sequence& sequence, PositionRange block, const BlockProof& proof) {
  const ActingSteerings steerings = sequence.steerings();
  for (int32_t position = block.begin; position < block.end; ++position) {
    if (position < sequence.proven) continue;
    size_t acting = 0;
    for (size_t i = 0; i < sequence.acts.size(); ++i) {
      if (!steerings.ActsOn(i, block)) continue;
      const size_t row = acting++ * static_cast<size_t>(block.size());
      if (!sequence.acts[i].contains(position)) continue;
      const SteerProof& kept = proof.tokens[row + static_cast<size_t>(position - block.begin)];
      LLAMA_STEER_RETURN_IF_ERROR(Count(sequence, i, position, kept));
    }
  }
  return Status::Ok();
}

std::unique_ptr<BlockProof> ProofOfOpenBlock(const Sequence& sequence, PositionRange block) {
  const ActingSteerings steerings = sequence.steerings();
  const std::optional<Digest> key = ProofKey(steerings, block);
  if (!key) return nullptr;
  auto proof = std::make_unique<BlockProof>();
  proof->key = *key;
  for (size_t i = 0; i < sequence.acts.size(); ++i) {
    if (!steerings.ActsOn(i, block)) continue;
    const auto row = sequence.open_proof.begin() + static_cast<ptrdiff_t>(i) * block.size();
    proof->tokens.insert(proof->tokens.end(), row, row + block.size());
  }
  return proof;
}

std::vector<AppliedSteeringReport> ReportApplied(const RequestState& request) {
  std::vector<AppliedSteeringReport> reports(request.steering.size());
  for (size_t i = 0; i < reports.size(); ++i) {
    AppliedSteeringReport& report = reports[i];
    double ratio = 0.0;
    AddPromptGate(request.steering[i], report);
    AddSum(request.prompt_applied[i], report, ratio);
    const AppliedSum& prompt = request.prompt_applied[i];
    report.prompt_tokens = prompt.tokens - prompt.continuation_tokens;
    report.generated_tokens = prompt.continuation_tokens;
    for (const CompletionState& completion : request.completions) {
      AddSum(completion.applied[i], report, ratio);
      report.generated_tokens += completion.applied[i].tokens;
      report.first_positions.push_back(completion.first_positions[i]);
    }
    if (report.steered_rows > 0) {
      report.mean_delta_ratio = ratio / static_cast<double>(report.steered_rows);
    }
  }
  return reports;
}

}  // namespace llama_steer
