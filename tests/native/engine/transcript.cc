#include "engine/transcript.h"

#include <algorithm>
#include <bit>

namespace llama_steer {
namespace {

bool SameBits(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }

bool SameToken(const ScoredToken& a, const ScoredToken& b) {
  if (a.token_id != b.token_id || !SameBits(a.logprob, b.logprob)) return false;
  if (a.top.size() != b.top.size()) return false;
  for (size_t i = 0; i < a.top.size(); ++i) {
    if (a.top[i].token_id != b.top[i].token_id) return false;
    if (!SameBits(a.top[i].logprob, b.top[i].logprob)) return false;
  }
  return true;
}

std::string TokensDiffer(const std::string& what, const std::vector<ScoredToken>& part,
                         const std::vector<ScoredToken>& whole) {
  if (part.size() > whole.size()) return what + ": more tokens than alone";
  for (size_t i = 0; i < part.size(); ++i) {
    if (!SameToken(part[i], whole[i])) return what + ": token " + std::to_string(i) + " differs";
  }
  return "";
}

bool SameProof(const AppliedSteeringReport& a, const AppliedSteeringReport& b) {
  return a.prompt_tokens == b.prompt_tokens && a.generated_tokens == b.generated_tokens &&
         a.steered_rows == b.steered_rows && a.gate_evaluations == b.gate_evaluations &&
         a.gate_fired == b.gate_fired && a.first_positions == b.first_positions &&
         std::bit_cast<uint64_t>(a.mean_delta_ratio) == std::bit_cast<uint64_t>(b.mean_delta_ratio);
}

}  // namespace

uint64_t RequestRecord::capture_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [key, site] : captures) bytes += site.data.size();
  return bytes;
}

void Transcript::Add(const EngineEvent& event) {
  if (std::holds_alternative<ReadyEvent>(event)) ready_ = true;
  if (const auto* fatal = std::get_if<FatalEvent>(&event)) fatal_.push_back(*fatal);
  if (const auto* scored = std::get_if<PromptLogprobsEvent>(&event)) AddPromptLogprobs(*scored);
  if (const auto* token = std::get_if<TokenEvent>(&event)) AddToken(*token);
  if (const auto* scores = std::get_if<ProbeScoresEvent>(&event)) AddScores(*scores);
  if (const auto* rows = std::get_if<ActivationEvent>(&event)) AddActivations(*rows);
  if (const auto* done = std::get_if<DoneEvent>(&event)) AddDone(*done);
}

RequestRecord& Transcript::Open(RequestId id) {
  RequestRecord& record = records_[id];
  if (record.done) complaints_.push_back("event after the end of request " + std::to_string(id));
  return record;
}

void Transcript::AddPromptLogprobs(const PromptLogprobsEvent& event) {
  RequestRecord& record = Open(event.id);
  const auto held = static_cast<int32_t>(record.prompt_logprobs.size());
  if (held == 0) record.prompt_logprobs_from = event.first_position;
  if (event.first_position != record.prompt_logprobs_from + held) {
    complaints_.push_back("prompt logprobs out of order");
  }
  record.prompt_logprobs.insert(record.prompt_logprobs.end(), event.tokens.begin(),
                                event.tokens.end());
}

void Transcript::AddToken(const TokenEvent& event) {
  RequestRecord& record = Open(event.id);
  if (record.last_finish[event.completion] != FinishReason::kNone) {
    complaints_.push_back("token after the last one of its completion");
  }
  record.last_finish[event.completion] = event.finish;
  record.tokens[event.completion].push_back(event.token);
  record.kl[event.completion].push_back(event.kl_to_unsteered);
  ++record.token_events;
  ++record.credited_events;
}

void Transcript::AddScores(const ProbeScoresEvent& event) {
  ProbeRecord& record = Open(event.id).probes[{event.completion, event.probe}];
  if (event.positions.size() != event.scores.size() || event.positions.empty()) {
    complaints_.push_back("probe scores without their positions");
  }
  for (const int32_t position : event.positions) {
    if (!record.positions.empty() && position <= record.positions.back()) {
      complaints_.push_back("probed positions do not ascend");
    }
    record.positions.push_back(position);
  }
  record.scores.insert(record.scores.end(), event.scores.begin(), event.scores.end());
}

void Transcript::AddActivations(const ActivationEvent& event) {
  RequestRecord& record = Open(event.id);
  CapturedSite& site = record.captures[{static_cast<int32_t>(event.site), event.layer}];
  for (const int32_t position : event.positions) {
    if (!site.positions.empty() && position < site.positions.back()) {
      complaints_.push_back("captured positions do not ascend");
    }
    site.positions.push_back(position);
  }
  const auto bytes = static_cast<size_t>(event.rows * event.cols) * DTypeBytes(event.dtype);
  if (bytes != event.data.size()) complaints_.push_back("captured bytes do not fit the shape");
  site.token_ids.insert(site.token_ids.end(), event.token_ids.begin(), event.token_ids.end());
  if (!event.lens.empty() && static_cast<int64_t>(event.lens.size()) != event.rows) {
    complaints_.push_back("the lens does not fit the rows");
  }
  for (const auto& top : event.lens) {
    auto& row = site.lens.emplace_back();
    for (const TokenLogprob& entry : top) row.emplace_back(entry.token_id, entry.logprob);
  }
  site.data.insert(site.data.end(), event.data.begin(), event.data.end());
  ++record.credited_events;
}

void Transcript::AddDone(const DoneEvent& event) { Open(event.id).done = event; }

std::string DifferenceOfBeginning(const RequestRecord& part, const RequestRecord& whole) {
  for (const auto& [completion, tokens] : part.tokens) {
    const auto other = whole.tokens.find(completion);
    if (other == whole.tokens.end()) return "a completion that is not there alone";
    const std::string name = "completion " + std::to_string(completion);
    const std::string difference = TokensDiffer(name, tokens, other->second);
    if (!difference.empty()) return difference;
    const auto& kl = part.kl.at(completion);
    const auto& whole_kl = whole.kl.at(completion);
    if (!std::equal(kl.begin(), kl.end(), whole_kl.begin())) return name + ": KL differs";
  }
  for (const auto& [key, record] : part.probes) {
    const auto other = whole.probes.find(key);
    const std::string name = "probe " + std::to_string(key.second);
    if (other == whole.probes.end()) return name + " is not there alone";
    const ProbeRecord& all = other->second;
    if (record.scores.size() > all.scores.size()) return name + ": more scores than alone";
    if (!std::equal(record.scores.begin(), record.scores.end(), all.scores.begin()) ||
        !std::equal(record.positions.begin(), record.positions.end(), all.positions.begin())) {
      return name + " differs";
    }
  }
  return TokensDiffer("prompt", part.prompt_logprobs, whole.prompt_logprobs);
}

std::string Difference(const RequestRecord& a, const RequestRecord& b) {
  if (!a.done || !b.done) return "a request has not ended";
  if (a.done->status.code() != b.done->status.code()) {
    return "status '" + a.done->status.message() + "' and '" + b.done->status.message() + "'";
  }
  std::string difference = DifferenceOfBeginning(a, b);
  if (difference.empty()) difference = DifferenceOfBeginning(b, a);
  if (!difference.empty()) return difference;
  if (a.last_finish != b.last_finish) return "finish reasons of the last tokens differ";
  if (a.done->finish_reasons != b.done->finish_reasons) return "finish reasons differ";
  if (a.prompt_logprobs_from != b.prompt_logprobs_from) return "first scored position differs";
  if (a.captures != b.captures) return "captures differ";
  if (a.done->completion_tokens != b.done->completion_tokens) return "completion tokens differ";
  if (a.done->applied.size() != b.done->applied.size()) return "number of proofs differs";
  for (size_t i = 0; i < a.done->applied.size(); ++i) {
    const AppliedSteeringReport& x = a.done->applied[i];
    const AppliedSteeringReport& y = b.done->applied[i];
    if (SameProof(x, y)) continue;
    return "proof " + std::to_string(i) + " differs: tokens " + std::to_string(x.prompt_tokens) +
           "+" + std::to_string(x.generated_tokens) + " rows " + std::to_string(x.steered_rows) +
           " ratio " + std::to_string(x.mean_delta_ratio) + " and " +
           std::to_string(y.prompt_tokens) + "+" + std::to_string(y.generated_tokens) + " rows " +
           std::to_string(y.steered_rows) + " ratio " + std::to_string(y.mean_delta_ratio) +
           ", gate " + std::to_string(x.gate_fired) + "/" + std::to_string(x.gate_evaluations) +
           " and " + std::to_string(y.gate_fired) + "/" + std::to_string(y.gate_evaluations);
  }
  return "";
}

}  // namespace llama_steer
