// Admission: a request becomes a state with its vectors pinned, or is refused with the reason.
#include <algorithm>
#include <string>
#include <utility>

#include "engine/core.h"
#include "engine/sampling.h"

namespace llama_steer {
namespace {

std::string PathOf(const char* list, size_t index) {
  return std::string(list) + "[" + std::to_string(index) + "]";
}

Status CheckHolds(const ResidentVector& vector, VectorHandle handle, int32_t layer,
                  const std::string& path) {
  if (vector.DeviceRow(layer) >= 0) return Status::Ok();
  return Status::InvalidArgument(path + ": vector " + std::to_string(handle) +
                                 " does not hold layer " + std::to_string(layer));
}

bool IsZero(std::span<const float> row) {
  return std::ranges::all_of(row, [](float value) { return value == 0.0f; });
}

/// A prefill generates nothing that a text could still appear in.
Status CheckTexts(const RequestState& request, const Sequence& prompt) {
  if (request.spec.max_new_tokens > 0) return Status::Ok();
  const auto refuse = [](const std::string& path) {
    return Status::InvalidArgument(path + ".after_text: no token of the prompt comes after it");
  };
  const PositionRange computed{0, request.computed_end()};
  for (size_t i = 0; i < request.steering.size(); ++i) {
    const SteeringEntry& entry = request.steering[i];
    if (entry.text == kNoText) continue;
    if (Intersect(entry.meant(prompt.texts), computed).empty()) {
      return refuse(PathOf("steering", i) + ".positions");
    }
  }
  for (size_t i = 0; i < request.probes.size(); ++i) {
    if (request.probes[i].text == kNoText) continue;
    if (request.probes[i].reads(request.prompt_tokens(), prompt.texts).empty()) {
      return Status::InvalidArgument(PathOf("probes", i) +
                                     ".after_text: does not appear in the prompt");
    }
  }
  if (request.capture_text != kNoText && request.capture->todo.empty()) {
    return refuse("capture.tokens");
  }
  return Status::Ok();
}

}  // namespace

StatusOr<std::unique_ptr<RequestState>> EngineCore::Admit(EngineRequest& request) const {
  LLAMA_STEER_RETURN_IF_ERROR(CheckRequest(request, limits_));
  auto state = std::make_unique<RequestState>();
  state->spec = std::move(request);
  state->credits = state->spec.credits;
  state->capture_credit_bytes =
      static_cast<int64_t>(std::min<uint64_t>(state->spec.capture_credit_bytes, INT64_MAX / 2));
  Status status = PinAdapter(*state);
  if (status.ok()) status = PinSteerings(*state);
  if (status.ok()) status = PinProbes(*state);
  if (status.ok()) status = AddCapture(*state);
  if (status.ok()) status = AddPrompt(*state);
  if (!status.ok()) {
    request = std::move(state->spec);
    return status;
  }
  return state;
}

Status EngineCore::PinAdapter(RequestState& request) const {
  StatusOr<std::shared_ptr<const ResidentAdapter>> adapter = adapters_.Find(request.spec.adapter);
  if (!adapter.ok()) return adapter.status();
  request.adapter = *adapter;
  return Status::Ok();
}

Status EngineCore::PinSteerings(RequestState& request) const {
  for (size_t i = 0; i < request.spec.steering.size(); ++i) {
    const SteeringParams& params = request.spec.steering[i];
    const std::string path = PathOf("steering", i);
    StatusOr<std::shared_ptr<const ResidentVector>> vector = vectors_.Find(params.vector);
    if (!vector.ok()) return vector.status();
    for (const int32_t layer : params.layers) {
      LLAMA_STEER_RETURN_IF_ERROR(CheckHolds(**vector, params.vector, layer, path));
    }
    SteeringEntry entry{.params = params, .inert = IsInert(params), .vector = *vector};
    LLAMA_STEER_RETURN_IF_ERROR(PinGate(entry, path + ".gate"));
    LLAMA_STEER_RETURN_IF_ERROR(
        AddText(request, params.after_text, path + ".positions", entry.text));
    request.steering.push_back(std::move(entry));
  }
  return Status::Ok();
}

Status EngineCore::PinGate(SteeringEntry& entry, const std::string& path) const {
  if (!entry.params.gate) return Status::Ok();
  const GateParams& gate = *entry.params.gate;
  StatusOr<std::shared_ptr<const ResidentVector>> vector = vectors_.Find(gate.vector);
  if (!vector.ok()) return vector.status();
  LLAMA_STEER_RETURN_IF_ERROR(CheckHolds(**vector, gate.vector, gate.layer, path));
  if (gate.metric == GateMetric::kCosine && IsZero((*vector)->HostRow(gate.layer))) {
    return Status::InvalidArgument(path + ": a row of zeros has no cosine");
  }
  entry.gate_vector = *vector;
  if (IsOnPrompt(gate)) entry.decision = GateDecision::kUndecided;
  return Status::Ok();
}

Status EngineCore::PinProbes(RequestState& request) const {
  for (size_t i = 0; i < request.spec.probes.size(); ++i) {
    const ProbeParams& params = request.spec.probes[i];
    const std::string path = PathOf("probes", i);
    StatusOr<std::shared_ptr<const ResidentVector>> vector = vectors_.Find(params.vector);
    if (!vector.ok()) return vector.status();
    LLAMA_STEER_RETURN_IF_ERROR(CheckHolds(**vector, params.vector, params.layer, path));
    ProbeEntry entry{.params = params, .vector = *vector};
    LLAMA_STEER_RETURN_IF_ERROR(AddText(request, params.after_text, path, entry.text));
    request.probes.push_back(std::move(entry));
  }
  return Status::Ok();
}

/// An empty text is none.
Status EngineCore::AddText(RequestState& request, const std::vector<uint8_t>& text,
                           const std::string& path, int32_t& index) const {
  if (text.empty()) return Status::Ok();
  if (token_texts_.empty()) {
    return Status::FailedPrecondition(path + ".after_text: the engine has no texts of tokens");
  }
  index = static_cast<int32_t>(request.texts.size());
  request.texts.emplace_back(text);
  return Status::Ok();
}

/// The prompt's sequence, and what depends on what stands in the prompt.
Status EngineCore::AddPrompt(RequestState& request) const {
  const EngineRequest& spec = request.spec;
  if (spec.prompt_logprobs_from) {
    request.to_score = {*spec.prompt_logprobs_from - 1, request.prompt_tokens() - 1};
  }
  request.prompt_applied.resize(spec.steering.size());
  request.completions.resize(spec.completions);
  for (CompletionState& completion : request.completions) {
    completion.applied.resize(spec.steering.size());
    completion.first_positions.resize(spec.steering.size(), -1);
  }
  request.prompt_gates = PromptGates::Of(request.steering, request.prompt_tokens());
  if (request.evaluating() && request.prompt_gates->rows_per_token() > max_capture_rows_) {
    return Status::InvalidArgument("the gates on the prompt read more rows of a token than the " +
                                   std::to_string(max_capture_rows_) + " of the staging area");
  }
  auto prompt = std::make_unique<Sequence>();
  prompt->request = &request;
  BeginSeenTokens(*prompt);
  ReadPrompt(*prompt, token_texts_);
  LLAMA_STEER_RETURN_IF_ERROR(CheckTexts(request, *prompt));
  request.sequences.push_back(std::move(prompt));
  return Status::Ok();
}

Status EngineCore::AddCapture(RequestState& request) const {
  if (!request.spec.capture) return Status::Ok();
  // With several completions only the prompt is captured; CheckRequest saw to it.
  const int32_t end =
      request.spec.completions > 1 ? request.prompt_tokens() : request.computed_end();
  StatusOr<CaptureState> capture = MakeCaptureState(*request.spec.capture, limits_.layers, end);
  if (!capture.ok()) return capture.status();
  if (capture->rows_per_token() > max_capture_rows_) {
    return Status::InvalidArgument(
        "a captured token has " + std::to_string(capture->rows_per_token()) +
        " rows, the staging area holds " + std::to_string(max_capture_rows_));
  }
  capture->token_bytes = TokenBytes(*capture, hidden_size_);
  if (!capture->params.mean && request.capture_credit_bytes < capture->token_bytes) {
    return Status::InvalidArgument("a captured token takes " +
                                   std::to_string(capture->token_bytes) + " bytes, more than the " +
                                   std::to_string(request.capture_credit_bytes) + " granted");
  }
  request.capture = std::move(capture.value());
  return AddText(request, request.spec.capture->after_text, "capture.tokens", request.capture_text);
}

}  // namespace llama_steer
