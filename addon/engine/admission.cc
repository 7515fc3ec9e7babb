#include "engine/admission.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace llama_steer {
namespace {

std::string Text(int64_t value) { return std::to_string(value); }

/// Positions whose keys and values are computed: the last generated token's are not.
int64_t ComputedEnd(const EngineRequest& request) {
  const auto prompt = static_cast<int64_t>(request.prompt_token_ids.size());
  return prompt + std::max<int64_t>(int64_t{request.max_new_tokens} - 1, 0);
}

Status CheckPrompt(const EngineRequest& request, const RequestLimits& limits) {
  if (request.prompt_token_ids.empty()) return Status::InvalidArgument("the prompt is empty");
  const auto vocab = static_cast<uint32_t>(limits.vocab_size);
  for (size_t i = 0; i < request.prompt_token_ids.size(); ++i) {
    if (request.prompt_token_ids[i] >= vocab) {
      return Status::InvalidArgument("prompt token " + Text(static_cast<int64_t>(i)) + " is " +
                                     Text(request.prompt_token_ids[i]) + ", the vocabulary has " +
                                     Text(vocab) + " tokens");
    }
  }
  const auto prompt = static_cast<int64_t>(request.prompt_token_ids.size());
  if (request.prompt_logprobs_from &&
      (*request.prompt_logprobs_from < 1 || *request.prompt_logprobs_from > prompt)) {
    return Status::InvalidArgument("prompt logprobs from position " +
                                   Text(*request.prompt_logprobs_from) + ": must be within [1, " +
                                   Text(prompt) + "]");
  }
  return Status::Ok();
}

Status CheckSize(const EngineRequest& request, const RequestLimits& limits) {
  if (request.completions < 1 ||
      request.completions > static_cast<uint32_t>(limits.max_completions)) {
    return Status::InvalidArgument(Text(request.completions) + " completions: must be within [1, " +
                                   Text(limits.max_completions) + "]");
  }
  const auto prompt = static_cast<int64_t>(request.prompt_token_ids.size());
  const int64_t tokens = prompt + request.max_new_tokens;
  if (tokens > limits.context_tokens) {
    return Status::InvalidArgument("prompt and max_new_tokens make " + Text(tokens) +
                                   " tokens, the context holds " + Text(limits.context_tokens));
  }
  const int64_t blocks =
      (ComputedEnd(request) + limits.kv_block_tokens - 1) / limits.kv_block_tokens;
  if (blocks > limits.kv_blocks) {
    return Status::InvalidArgument("the request needs " + Text(blocks) +
                                   " KV blocks, the cache has " + Text(limits.kv_blocks));
  }
  return Status::Ok();
}

Status CheckSampling(const SamplingParams& sampling, const RequestLimits& limits) {
  if (!std::isfinite(sampling.temperature) || sampling.temperature < 0.0f) {
    return Status::InvalidArgument("temperature must be finite and not negative");
  }
  if (!(sampling.top_p > 0.0f && sampling.top_p <= 1.0f)) {
    return Status::InvalidArgument("top_p must be within (0, 1]");
  }
  if (!(sampling.min_p >= 0.0f && sampling.min_p <= 1.0f)) {
    return Status::InvalidArgument("min_p must be within [0, 1]");
  }
  if (!std::isfinite(sampling.repetition_penalty) || sampling.repetition_penalty <= 0.0f) {
    return Status::InvalidArgument("repetition_penalty must be finite and positive");
  }
  if (!std::isfinite(sampling.presence_penalty) || !std::isfinite(sampling.frequency_penalty)) {
    return Status::InvalidArgument("presence_penalty and frequency_penalty must be finite");
  }
  if (sampling.top_logprobs > static_cast<uint32_t>(limits.vocab_size)) {
    return Status::InvalidArgument(Text(sampling.top_logprobs) +
                                   " top logprobs asked for, the vocabulary has " +
                                   Text(limits.vocab_size) + " tokens");
  }
  for (const TokenBias& bias : sampling.logit_bias) {
    if (bias.token_id >= static_cast<uint32_t>(limits.vocab_size) || std::isnan(bias.bias) ||
        bias.bias == INFINITY) {
      return Status::InvalidArgument("logit bias of token " + Text(bias.token_id) +
                                     ": unknown token, or a bias that is NaN or +Inf");
    }
  }
  return Status::Ok();
}

Status CheckSteering(const SteeringParams& steering, size_t index, int64_t computed_end,
                     const RequestLimits& limits) {
  const auto refuse = [index](const std::string& reason) {
    return Status::InvalidArgument("steering " + std::to_string(index) + ": " + reason);
  };
  if (!std::isfinite(steering.coefficient)) return refuse("the coefficient must be finite");
  // Written so that NaN is refused too.
  if (steering.kind == SteerKind::kClamp && !(steering.clamp_min <= steering.clamp_max)) {
    return refuse("clamp_min must not be above clamp_max");
  }
  if (steering.layers.empty()) return refuse("it names no layer");
  for (size_t i = 0; i < steering.layers.size(); ++i) {
    const int32_t layer = steering.layers[i];
    if (layer < 0 || layer >= limits.layers) {
      return refuse("layer " + Text(layer) + " is outside the model's " + Text(limits.layers) +
                    " layers");
    }
    if (i > 0 && layer <= steering.layers[i - 1]) return refuse("its layers must ascend");
  }
  if (steering.position_begin < 0 || steering.position_begin >= steering.position_end) {
    return refuse("positions [" + Text(steering.position_begin) + ", " +
                  Text(steering.position_end) + ") hold no token");
  }
  if (steering.position_begin >= computed_end) {
    return refuse("it begins at position " + Text(steering.position_begin) +
                  ", but the request computes positions below " + Text(computed_end) +
                  " only (the last generated token is not fed back)");
  }
  return Status::Ok();
}

Status CheckGate(const SteeringParams& steering, size_t index, int64_t prompt,
                 const RequestLimits& limits) {
  if (!steering.gate) return Status::Ok();
  const GateParams& gate = *steering.gate;
  const std::string path = "steering[" + std::to_string(index) + "].";
  if (gate.layer < 0 || gate.layer >= limits.layers) {
    return Status::InvalidArgument(path + "gate.layer: " + Text(gate.layer) +
                                   " is outside the model's " + Text(limits.layers) + " layers");
  }
  if (!std::isfinite(gate.threshold)) {
    return Status::InvalidArgument(path + "gate.threshold: must be finite");
  }
  if (gate.prompt_tokens < 0 || gate.prompt_tokens > prompt) {
    return Status::InvalidArgument(path + "gate: reads " + Text(gate.prompt_tokens) +
                                   " tokens of a prompt of " + Text(prompt));
  }
  if (gate.scope == GateScope::kEachToken && steering.layers.front() < gate.layer) {
    return Status::InvalidArgument(path + "layers: block " + Text(steering.layers.front()) +
                                   " comes before block " + Text(gate.layer) +
                                   " of the gate on each token");
  }
  return Status::Ok();
}

Status CheckProbes(const EngineRequest& request, const RequestLimits& limits) {
  if (request.probes.size() > static_cast<size_t>(kMaxProbesPerRequest)) {
    return Status::InvalidArgument("probes: " + Text(static_cast<int64_t>(request.probes.size())) +
                                   ", a request may have " + Text(kMaxProbesPerRequest));
  }
  for (size_t i = 0; i < request.probes.size(); ++i) {
    const ProbeParams& probe = request.probes[i];
    const std::string path = "probes[" + std::to_string(i) + "].";
    if (probe.layer < 0 || probe.layer >= limits.layers) {
      return Status::InvalidArgument(path + "layer: " + Text(probe.layer) +
                                     " is outside the model's " + Text(limits.layers) + " layers");
    }
    if ((probe.read == ProbeRead::kAfterText) == probe.after_text.empty()) {
      return Status::InvalidArgument(path +
                                     "after_text: belongs to reading after a text, not empty");
    }
  }
  return Status::Ok();
}

/// A shadow computes a row beside each row of its sequence and holds blocks of its own.
Status CheckComparison(const EngineRequest& request, const RequestLimits& limits) {
  if (!request.compare_unsteered) return Status::Ok();
  if (limits.max_rows < 2) {
    return Status::FailedPrecondition(
        "compare_unsteered: takes two rows a step, max_batch_tokens is " + Text(limits.max_rows));
  }
  const int64_t blocks =
      2 * ((ComputedEnd(request) + limits.kv_block_tokens - 1) / limits.kv_block_tokens);
  if (blocks > limits.kv_blocks) {
    return Status::InvalidArgument("compare_unsteered: the request then needs " + Text(blocks) +
                                   " KV blocks, the cache has " + Text(limits.kv_blocks));
  }
  return Status::Ok();
}

}  // namespace

Status CheckRequest(const EngineRequest& request, const RequestLimits& limits) {
  LLAMA_STEER_RETURN_IF_ERROR(CheckPrompt(request, limits));
  LLAMA_STEER_RETURN_IF_ERROR(CheckSize(request, limits));
  LLAMA_STEER_RETURN_IF_ERROR(CheckSampling(request.sampling, limits));
  if (request.steering.size() > static_cast<size_t>(limits.max_steerings)) {
    return Status::InvalidArgument(Text(static_cast<int64_t>(request.steering.size())) +
                                   " steerings, a request may have " + Text(limits.max_steerings));
  }
  for (size_t i = 0; i < request.steering.size(); ++i) {
    LLAMA_STEER_RETURN_IF_ERROR(
        CheckSteering(request.steering[i], i, ComputedEnd(request), limits));
    LLAMA_STEER_RETURN_IF_ERROR(CheckGate(
        request.steering[i], i, static_cast<int64_t>(request.prompt_token_ids.size()), limits));
  }
  if (request.capture && request.capture->lens_top_k > static_cast<uint32_t>(limits.vocab_size)) {
    return Status::InvalidArgument("capture.lens_top_k: " + Text(request.capture->lens_top_k) +
                                   " tokens of a vocabulary of " + Text(limits.vocab_size));
  }
  LLAMA_STEER_RETURN_IF_ERROR(CheckProbes(request, limits));
  LLAMA_STEER_RETURN_IF_ERROR(CheckComparison(request, limits));
  if (request.capture && request.completions > 1) {
    const auto prompt = static_cast<int32_t>(request.prompt_token_ids.size());
    if (request.max_new_tokens > 1 && request.capture->position_end > prompt) {
      return Status::InvalidArgument(
          "sampling.n: captures of generated tokens need one completion, the request has " +
          Text(request.completions));
    }
  }
  return Status::Ok();
}

}  // namespace llama_steer
