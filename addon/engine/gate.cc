#include "engine/gate.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace llama_steer {
namespace {

double ScoreOf(GateMetric metric, std::span<const double> sums, int32_t tokens,
               std::span<const float> vector) {
  double dot = 0.0;
  double row_squares = 0.0;
  double vector_squares = 0.0;
  for (size_t i = 0; i < sums.size(); ++i) {
    const double value = sums[i] / tokens;
    const auto direction = static_cast<double>(vector[i]);
    dot += value * direction;
    row_squares += value * value;
    vector_squares += direction * direction;
  }
  if (metric == GateMetric::kDot) return dot;
  return dot / (std::sqrt(row_squares) * std::sqrt(vector_squares));
}

}  // namespace

bool IsOnPrompt(const GateParams& gate) { return gate.scope != GateScope::kEachToken; }

bool IsOpen(const GateParams& gate, double score) {
  const auto threshold = static_cast<double>(gate.threshold);
  return gate.comparator == GateComparator::kAbove ? score > threshold : score < threshold;
}

std::optional<PromptGates> PromptGates::Of(std::span<const SteeringEntry> entries,
                                           int32_t prompt_tokens) {
  PromptGates result;
  result.todo_ = {prompt_tokens, 0};
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto& params = entries[i].params.gate;
    if (!params || !IsOnPrompt(*params)) continue;
    const int32_t end = params->prompt_tokens > 0 ? params->prompt_tokens : prompt_tokens;
    const int32_t site = CaptureSite(CapturePoint::kResidualBeforeSteering, params->layer);
    auto& sites = result.device_sites_;
    const auto found = std::ranges::find(sites, site);
    Gate gate;
    gate.steering = i;
    gate.ordinal = static_cast<size_t>(found - sites.begin());
    gate.read = {params->scope == GateScope::kPromptMean ? 0 : end - 1, end};
    if (found == sites.end()) sites.push_back(site);
    result.todo_.begin = std::min(result.todo_.begin, gate.read.begin);
    result.todo_.end = std::max(result.todo_.end, gate.read.end);
    result.gates_.push_back(std::move(gate));
  }
  if (result.gates_.empty()) return std::nullopt;
  return result;
}

void PromptGates::TakeRows(int32_t tokens, const float* staging, int64_t hidden_size) {
  for (int32_t t = 0; t < tokens; ++t) {
    for (Gate& gate : gates_) {
      if (!gate.read.contains(todo_.begin)) continue;
      const int64_t row = int64_t{t} * rows_per_token() + static_cast<int64_t>(gate.ordinal);
      Add(gate, staging + row * hidden_size, hidden_size);
    }
    ++todo_.begin;
  }
}

void PromptGates::Add(Gate& gate, const float* row, int64_t hidden_size) const {
  gate.sums.resize(static_cast<size_t>(hidden_size), 0.0);
  for (size_t i = 0; i < gate.sums.size(); ++i) gate.sums[i] += static_cast<double>(row[i]);
}

Status PromptGates::Decide(std::span<SteeringEntry> entries) const {
  for (const Gate& gate : gates_) {
    SteeringEntry& entry = entries[gate.steering];
    const GateParams& params = *entry.params.gate;
    const double score = ScoreOf(params.metric, gate.sums, gate.read.size(),
                                 entry.gate_vector->HostRow(params.layer));
    if (!std::isfinite(score)) {
      return Status::Internal("steering[" + std::to_string(gate.steering) +
                              "].gate: the score of the prompt is not finite");
    }
    entry.decision = IsOpen(params, score) ? GateDecision::kFired : GateDecision::kNotFired;
  }
  return Status::Ok();
}

}  // namespace llama_steer
