#include "engine/random_requests.h"

#include <algorithm>

#include "engine/core_harness.h"

namespace llama_steer {
namespace {

class Dice {
 public:
  explicit Dice(std::mt19937& random) : random_(random) {}
  int32_t Below(int32_t end) {
    return static_cast<int32_t>(random_() % static_cast<uint32_t>(end));
  }
  int32_t Between(int32_t first, int32_t last) { return first + Below(last - first + 1); }
  bool OneIn(int32_t n) { return Below(n) == 0; }

 private:
  std::mt19937& random_;
};

std::vector<int32_t> SomeLayers(int32_t layers, Dice& dice) {
  std::vector<int32_t> chosen;
  for (int32_t layer = 0; layer < layers; ++layer) {
    if (dice.OneIn(2)) chosen.push_back(layer);
  }
  if (chosen.empty()) chosen.push_back(dice.Below(layers));
  return chosen;
}

/// Of one or two bytes: met soon, in most completions.
std::vector<uint8_t> SomeText(Dice& dice) {
  std::vector<uint8_t> text;
  for (int32_t i = dice.Between(1, 3); i > 0; --i) {
    text.push_back(static_cast<uint8_t>('a' + dice.Below(4)));
  }
  return text;
}

GateParams SomeGate(const std::vector<int32_t>& layers, int32_t model_layers, int32_t prompt,
                    Dice& dice) {
  GateParams gate;
  gate.vector = static_cast<VectorHandle>(dice.Between(1, kTestVectors));
  gate.metric = static_cast<GateMetric>(dice.Below(2));
  gate.comparator = static_cast<GateComparator>(dice.Below(2));
  gate.threshold = 0.1f * static_cast<float>(dice.Between(-1, 1));
  gate.scope = static_cast<GateScope>(dice.Below(3));
  gate.layer = gate.scope == GateScope::kEachToken ? dice.Between(0, layers.front())
                                                   : dice.Below(model_layers);
  if (dice.OneIn(4)) gate.prompt_tokens = dice.Between(1, prompt);
  return gate;
}

ProbeParams SomeProbe(const LlamaConfig& config, Dice& dice) {
  ProbeParams probe;
  probe.vector = static_cast<VectorHandle>(dice.Between(1, kTestVectors));
  probe.layer = dice.Below(config.layers);
  probe.read = static_cast<ProbeRead>(dice.Below(3));
  if (probe.read == ProbeRead::kAfterText) probe.after_text = SomeText(dice);
  return probe;
}

SteeringParams SomeSteering(const LlamaConfig& config, int32_t prompt, int32_t end, Dice& dice) {
  SteeringParams steering = TestSteering(static_cast<VectorHandle>(dice.Between(1, kTestVectors)),
                                         SomeLayers(config.layers, dice));
  steering.kind = static_cast<SteerKind>(dice.Below(4));
  steering.coefficient = 0.5f * static_cast<float>(dice.Below(4));
  steering.clamp_min = -0.25f;
  steering.clamp_max = 0.25f;
  steering.preserve_norm = dice.OneIn(3);
  const int32_t scope = dice.Below(4);
  if (scope == 1) steering.position_end = prompt;
  if (scope == 2 && end > prompt) steering.position_begin = prompt;
  if (scope == 3) {
    steering.position_begin = dice.Below(end);
    steering.position_end = steering.position_begin + dice.Between(1, 40);
  }
  if (dice.OneIn(2)) steering.gate = SomeGate(steering.layers, config.layers, prompt, dice);
  if (dice.OneIn(4)) steering.after_text = SomeText(dice);
  return steering;
}

CaptureParams SomeCapture(const LlamaConfig& config, int32_t prompt, int32_t end, bool prompt_only,
                          Dice& dice) {
  CaptureParams capture;
  for (int32_t site = 0; site < 5; ++site) {
    if (dice.OneIn(2)) capture.sites.push_back(static_cast<CaptureSiteKind>(site));
  }
  if (capture.sites.empty()) capture.sites.push_back(CaptureSiteKind::kResidPost);
  capture.layers = SomeLayers(config.layers, dice);
  capture.position_begin = dice.Below(prompt_only ? prompt : end);
  if (prompt_only) capture.position_end = prompt;
  capture.mean = dice.OneIn(3);
  capture.before_steering = dice.OneIn(3);
  capture.dtype = static_cast<DType>(dice.Below(3));
  if (dice.OneIn(3)) capture.lens_top_k = 3;
  return capture;
}

void SetSampling(SamplingParams& sampling, Dice& dice) {
  sampling.temperature = dice.OneIn(4) ? 0.0f : 0.8f;
  sampling.seed = static_cast<uint64_t>(dice.Below(3));
  sampling.top_k = dice.OneIn(2) ? 20 : 0;
  sampling.top_p = dice.OneIn(2) ? 0.9f : 1.0f;
  if (dice.OneIn(4)) sampling.repetition_penalty = 1.2f;
  if (dice.OneIn(4)) sampling.presence_penalty = 0.4f;
  if (dice.OneIn(4)) sampling.frequency_penalty = 0.3f;
  sampling.logprobs = dice.OneIn(2);
  sampling.top_logprobs = sampling.logprobs ? 2 : 0;
  if (dice.OneIn(4)) sampling.logit_bias = {{.token_id = 3, .bias = 1.5f}};
}

/// Leaves what a step can be planned with before the token that it begins with is known.
void MakePlain(EngineRequest& request) {
  request.sampling.repetition_penalty = 1.0f;
  request.sampling.presence_penalty = 0.0f;
  request.sampling.frequency_penalty = 0.0f;
  for (SteeringParams& steering : request.steering) steering.after_text.clear();
  const auto prompt = static_cast<int32_t>(request.prompt_token_ids.size());
  if (request.capture && request.capture->position_begin >= prompt) request.capture.reset();
  if (request.capture) {
    request.capture->position_end = prompt;
    request.capture->after_text.clear();
  }
  request.probes.clear();
  request.compare_unsteered = false;
}

}  // namespace

EngineRequest RandomRequest(RequestId id, const LlamaConfig& config,
                            const RandomRequestLimits& limits, std::mt19937& random) {
  Dice dice(random);
  EngineRequest request;
  request.id = id;
  const int32_t prompt = dice.Between(1, limits.max_prompt_tokens);
  const int32_t shared = dice.Below(limits.max_prompt_tokens);
  const auto family = static_cast<uint64_t>(dice.Below(2));
  for (int32_t i = 0; i < prompt; ++i) {
    const uint64_t source = i < shared ? family : id + 100;
    const auto vocab = static_cast<uint64_t>(config.vocab_size);
    const uint64_t token = Mix(source, static_cast<uint64_t>(i)) % vocab;
    request.prompt_token_ids.push_back(
        static_cast<uint32_t>(token == kPoisonToken ? token + 1 : token));
  }
  request.max_new_tokens =
      dice.OneIn(6)
          ? 0
          : static_cast<uint32_t>(dice.Below(static_cast<int32_t>(limits.max_new_tokens)));
  if (dice.OneIn(3)) {
    request.completions =
        static_cast<uint32_t>(dice.Between(1, static_cast<int32_t>(limits.max_completions)));
  }
  SetSampling(request.sampling, dice);
  const int32_t end = prompt + std::max(static_cast<int32_t>(request.max_new_tokens) - 1, 0);
  for (int32_t i = dice.Below(4) - 1; i > 0; --i) {
    request.steering.push_back(SomeSteering(config, prompt, end, dice));
  }
  if (limits.captures && dice.OneIn(3)) {
    request.capture = SomeCapture(config, prompt, end, request.completions > 1, dice);
  }
  if (request.capture && dice.OneIn(4)) request.capture->after_text = SomeText(dice);
  for (int32_t i = dice.Below(4) - 1; i > 0; --i) request.probes.push_back(SomeProbe(config, dice));
  request.compare_unsteered = limits.compare && dice.OneIn(2);
  if (dice.OneIn(4)) request.prompt_logprobs_from = dice.Between(1, prompt);
  if (dice.OneIn(3)) request.cache_salt = "tenant";
  if (dice.OneIn(2)) {
    request.adapter = static_cast<AdapterHandle>(dice.Between(1, kTestAdapters));
  }
  if (limits.plain) {
    MakePlain(request);
    const int32_t stops = config.vocab_size / 25;
    for (int32_t i = 0; i < stops; ++i) {
      request.sampling.stop_token_ids.push_back(
          static_cast<uint32_t>(dice.Below(config.vocab_size)));
    }
  }
  request.credits = 1 << 20;
  request.capture_credit_bytes = uint64_t{1} << 40;
  return request;
}

}  // namespace llama_steer
