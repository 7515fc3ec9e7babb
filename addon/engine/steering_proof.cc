#include "engine/steering_proof.h"

#include <optional>
#include <string>

namespace llama_steer {
namespace {

Status Count(Sequence& sequence, size_t steering, int32_t position, const SteerProof& proof) {
  RequestState& request = *sequence.request;
  const size_t layers = request.steering[steering].params.layers.size();
  if (proof.layers_acted != layers) {
    return Status::Internal("steering " + std::to_string(steering) + " acted in " +
                            std::to_string(proof.layers_acted) + " of " + std::to_string(layers) +
                            " layers on the token at position " + std::to_string(position));
  }
  const bool in_prompt = position < request.prompt_tokens();
  auto& sums = in_prompt ? request.prompt_applied
                         : request.completions[static_cast<size_t>(sequence.completion)].applied;
  AppliedSum& sum = sums[steering];
  sum.tokens += 1;
  sum.rows += proof.layers_acted;
  sum.ratio += static_cast<double>(proof.delta_ratio_sum);
  return Status::Ok();
}

}  // namespace

Status RecordComputed(Sequence& sequence, int32_t position, std::span<const SteerProof> proof,
                      int32_t block_tokens) {
  const std::vector<SteeringEntry>& steering = sequence.request->steering;
  const auto stride = static_cast<size_t>(block_tokens);
  sequence.open_proof.resize(steering.size() * stride);
  const auto offset = static_cast<size_t>(position % block_tokens);
  for (size_t i = 0; i < steering.size(); ++i) {
    const bool meant = steering[i].positions().contains(position);
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
  const std::vector<SteeringEntry>& steering = sequence.request->steering;
  for (int32_t position = block.begin; position < block.end; ++position) {
    if (position < sequence.proven) continue;
    size_t acting = 0;
    for (size_t i = 0; i < steering.size(); ++i) {
      if (Intersect(steering[i].positions(), block).empty()) continue;
      const size_t row = acting++ * static_cast<size_t>(block.size());
      if (!steering[i].positions().contains(position)) continue;
      const SteerProof& kept = proof.tokens[row + static_cast<size_t>(position - block.begin)];
      LLAMA_STEER_RETURN_IF_ERROR(Count(sequence, i, position, kept));
    }
  }
  return Status::Ok();
}

std::unique_ptr<BlockProof> ProofOfOpenBlock(const Sequence& sequence, PositionRange block) {
  const std::vector<SteeringEntry>& steering = sequence.request->steering;
  const std::optional<Digest> key = ProofKey(steering, block);
  if (!key) return nullptr;
  auto proof = std::make_unique<BlockProof>();
  proof->key = *key;
  for (size_t i = 0; i < steering.size(); ++i) {
    if (Intersect(steering[i].positions(), block).empty()) continue;
    const auto row = sequence.open_proof.begin() + static_cast<ptrdiff_t>(i) * block.size();
    proof->tokens.insert(proof->tokens.end(), row, row + block.size());
  }
  return proof;
}

std::vector<AppliedSteeringReport> ReportApplied(const RequestState& request) {
  std::vector<AppliedSteeringReport> reports(request.steering.size());
  for (size_t i = 0; i < reports.size(); ++i) {
    AppliedSteeringReport& report = reports[i];
    const AppliedSum& prompt = request.prompt_applied[i];
    report.prompt_tokens = prompt.tokens;
    report.steered_rows = prompt.rows;
    double ratio = prompt.ratio;
    for (const CompletionState& completion : request.completions) {
      report.generated_tokens += completion.applied[i].tokens;
      report.steered_rows += completion.applied[i].rows;
      ratio += completion.applied[i].ratio;
    }
    if (report.steered_rows > 0) {
      report.mean_delta_ratio = ratio / static_cast<double>(report.steered_rows);
    }
  }
  return reports;
}

}  // namespace llama_steer
