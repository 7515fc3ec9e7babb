// What the engine said about each request, in a form that can be compared: independent of how
// events were cut. Breaks of the event contract are collected as text.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/event.h"

namespace llama_steer {

struct CapturedSite {
  std::vector<int32_t> positions;
  std::vector<uint32_t> token_ids;
  std::vector<uint8_t> data;
  std::vector<std::vector<std::pair<uint32_t, float>>> lens;  // one a row
  bool operator==(const CapturedSite&) const = default;
};

struct ProbeRecord {
  std::vector<int32_t> positions;
  std::vector<float> scores;
  bool operator==(const ProbeRecord&) const = default;
};

struct RequestRecord {
  std::map<uint32_t, std::vector<ScoredToken>> tokens;         // by completion
  std::map<uint32_t, std::vector<std::optional<double>>> kl;   // by completion, one a token
  std::map<std::pair<int32_t, uint32_t>, ProbeRecord> probes;  // by (completion, probe)
  std::map<uint32_t, FinishReason> last_finish;                // of the completion's last event
  std::vector<ScoredToken> prompt_logprobs;
  int32_t prompt_logprobs_from = -1;
  std::map<std::pair<int32_t, int32_t>, CapturedSite> captures;  // by (site, layer)
  int64_t token_events = 0;
  int64_t credited_events = 0;  // token and activation events
  std::optional<DoneEvent> done;

  uint64_t capture_bytes() const;
};

class Transcript {
 public:
  void Add(const EngineEvent& event);

  RequestRecord& of(RequestId id) { return records_[id]; }
  const std::map<RequestId, RequestRecord>& records() const { return records_; }
  /// Broken rules: events after the end, two ends, positions out of order.
  const std::vector<std::string>& complaints() const { return complaints_; }
  const std::vector<FatalEvent>& fatal() const { return fatal_; }
  bool ready() const { return ready_; }

 private:
  RequestRecord& Open(RequestId id);
  void AddPromptLogprobs(const PromptLogprobsEvent& event);
  void AddToken(const TokenEvent& event);
  void AddScores(const ProbeScoresEvent& event);
  void AddActivations(const ActivationEvent& event);
  void AddDone(const DoneEvent& event);

  std::map<RequestId, RequestRecord> records_;
  std::vector<std::string> complaints_;
  std::vector<FatalEvent> fatal_;
  bool ready_ = false;
};

/// Everything that must not depend on how a request was run, bit for bit. Empty when equal, else
/// the first difference.
std::string Difference(const RequestRecord& a, const RequestRecord& b);

/// The same for a request that was ended early: `part` must be the beginning of `whole`.
std::string DifferenceOfBeginning(const RequestRecord& part, const RequestRecord& whole);

}  // namespace llama_steer
