// JavaScript -> engine. What is checked here: types and ranges that C++ needs to be safe. Whether a
// request makes sense for the loaded model is for the engine to say, in its terminal event.
#include <algorithm>
#include <utility>

#include "binding/convert.h"
#include "binding/fields.h"
#include "binding/words.h"

namespace llama_steer {
namespace {

constexpr int32_t kMaxCount = INT32_MAX;

std::optional<Llama3RopeScaling> RopeScalingFromJs(const std::optional<Fields>& fields) {
  if (!fields) return std::nullopt;
  Llama3RopeScaling scaling;
  scaling.factor = fields->Finite("factor");
  scaling.low_frequency_factor = fields->Finite("lowFrequencyFactor");
  scaling.high_frequency_factor = fields->Finite("highFrequencyFactor");
  scaling.original_context_tokens = fields->Finite("originalContextTokens");
  return scaling;
}

LlamaConfig ConfigFromJs(const Fields& fields) {
  LlamaConfig config;
  config.hidden_size = fields.Int32("hiddenSize", 1, kMaxCount);
  config.intermediate_size = fields.Int32("intermediateSize", 1, kMaxCount);
  config.layers = fields.Int32("layers", 1, kMaxCount);
  config.query_heads = fields.Int32("queryHeads", 1, kMaxCount);
  config.kv_heads = fields.Int32("kvHeads", 1, kMaxCount);
  config.head_size = fields.Int32("headSize", 1, kMaxCount);
  config.vocab_size = fields.Int32("vocabSize", 1, kMaxCount);
  config.context_tokens = fields.Int32("contextTokens", 1, kMaxCount);
  config.norm_epsilon = fields.Float("normEpsilon");
  config.rope_theta = fields.Finite("ropeTheta");
  config.rope_scaling = RopeScalingFromJs(fields.ObjectOrNull("ropeScaling"));
  config.rope_linear_factor = fields.Finite("ropeLinearFactor");
  config.tied_embeddings = fields.Bool("tiedEmbeddings");
  config.attention_bias = fields.Bool("attentionBias");
  config.mlp_bias = fields.Bool("mlpBias");
  return config;
}

TensorLocation TensorFromJs(const Fields& fields) {
  TensorLocation tensor;
  tensor.name = fields.String("name");
  tensor.dtype = fields.Word<DType>("dtype", kDTypeWords);
  fields.ForEach("shape", [&](Napi::Value size, const std::string& size_path) {
    tensor.shape.push_back(IntegerArgument(size, size_path.c_str(), 1, kMaxCount));
  });
  tensor.file = fields.Int32("file", 0, kMaxCount);
  tensor.offset_bytes = fields.Uint53("offsetBytes");
  tensor.size_bytes = fields.Uint53("sizeBytes");
  return tensor;
}

CheckpointFiles CheckpointFromJs(const Fields& fields) {
  CheckpointFiles files;
  fields.ForEach("paths", [&](Napi::Value path, const std::string& where) {
    files.paths.push_back(Fields::ToString(path, where));
  });
  fields.ForEach("tensors", [&](Napi::Value tensor, const std::string& where) {
    files.tensors.push_back(TensorFromJs({tensor, where}));
  });
  return files;
}

SamplingParams SamplingFromJs(const Fields& fields) {
  SamplingParams sampling;
  sampling.temperature = fields.Float("temperature");
  sampling.top_p = fields.Float("topP");
  sampling.top_k = fields.Uint32("topK");
  sampling.min_p = fields.Float("minP");
  sampling.repetition_penalty = fields.Float("repetitionPenalty");
  sampling.presence_penalty = fields.Float("presencePenalty");
  sampling.frequency_penalty = fields.Float("frequencyPenalty");
  sampling.seed = fields.Uint64("seed");
  sampling.stop_token_ids = fields.Uint32s("stopTokenIds");
  const std::vector<uint32_t> bias_ids = fields.Uint32s("logitBiasTokenIds");
  const std::vector<float> biases = fields.Floats("logitBiasValues");
  if (bias_ids.size() != biases.size()) {
    throw fields.ComplaintAt("logitBiasValues", "one value for each of logitBiasTokenIds");
  }
  for (size_t i = 0; i < biases.size(); ++i) {
    sampling.logit_bias.push_back({bias_ids[i], biases[i]});
  }
  sampling.logprobs = fields.Bool("logprobs");
  sampling.top_logprobs = fields.Uint32("topLogprobs");
  return sampling;
}

std::optional<GateParams> GateFromJs(const std::optional<Fields>& fields) {
  if (!fields) return std::nullopt;
  GateParams gate;
  gate.vector = fields->Uint53("vector");
  gate.layer = fields->Int32("layer", 0, kMaxCount);
  gate.metric = fields->Word<GateMetric>("metric", kGateMetricWords);
  gate.comparator = fields->Word<GateComparator>("comparator", kGateComparatorWords);
  gate.threshold = fields->Float("threshold");
  gate.scope = fields->Word<GateScope>("scope", kGateScopeWords);
  gate.prompt_tokens = fields->Int32("promptTokens", 0, kMaxCount);
  return gate;
}

ProbeParams ProbeFromJs(Napi::Value value, const std::string& path) {
  const Fields fields(value, path);
  ProbeParams probe;
  probe.vector = fields.Uint53("vector");
  probe.layer = fields.Int32("layer", 0, kMaxCount);
  probe.read = fields.Word<ProbeRead>("read", kProbeReadWords);
  probe.after_text = fields.Bytes("afterText");
  return probe;
}

SteeringParams SteeringFromJs(Napi::Value value, const std::string& path) {
  const Fields fields(value, path);
  SteeringParams steering;
  steering.vector = fields.Uint53("vector");
  steering.kind = fields.Word<SteerKind>("kind", kSteerKindWords);
  steering.coefficient = fields.Float("coefficient");
  // An open side of a clamp is infinite.
  steering.clamp_min = static_cast<float>(fields.Number("clampMin"));
  steering.clamp_max = static_cast<float>(fields.Number("clampMax"));
  steering.layers = fields.Int32s("layers");
  steering.preserve_norm = fields.Bool("preserveNorm");
  steering.position_begin = fields.Int32("positionBegin", 0, kOpenEnd);
  steering.position_end = fields.Int32("positionEnd", 0, kOpenEnd);
  steering.gate = GateFromJs(fields.ObjectOrNull("gate"));
  steering.after_text = fields.Bytes("afterText");
  return steering;
}

std::optional<CaptureParams> CaptureFromJs(const std::optional<Fields>& fields) {
  if (!fields) return std::nullopt;
  CaptureParams capture;
  fields->ForEach("sites", [&](Napi::Value site, const std::string& path) {
    capture.sites.push_back(Fields::ToWord<CaptureSiteKind>(site, path, kCaptureSiteWords));
  });
  capture.layers = fields->Int32s("layers");
  capture.position_begin = fields->Int32("positionBegin", 0, kOpenEnd);
  capture.position_end = fields->Int32("positionEnd", 0, kOpenEnd);
  capture.mean = fields->Bool("mean");
  capture.before_steering = fields->Bool("beforeSteering");
  capture.dtype = fields->Word<DType>("dtype", kDTypeWords);
  capture.lens_top_k = fields->Uint32("lensTopK");
  capture.after_text = fields->Bytes("afterText");
  return capture;
}

std::array<uint8_t, 32> DigestFromJs(const Fields& fields) {
  std::array<uint8_t, 32> digest{};
  const std::vector<uint8_t> bytes = fields.Bytes("digest");
  if (bytes.size() != digest.size()) {
    throw fields.ComplaintAt("digest", std::to_string(digest.size()) + " bytes");
  }
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

LoraTarget LoraTargetFromJs(const Fields& fields) {
  LoraTarget target;
  target.layer = fields.Int32("layer", 0, kMaxCount);
  target.module = fields.Word<LoraModule>("module", kLoraModuleWords);
  target.rank = fields.Int32("rank", 1, kMaxCount);
  target.scale = fields.Float("scale");
  target.a = TensorFromJs(fields.Object("a"));
  target.b = TensorFromJs(fields.Object("b"));
  return target;
}

AdapterFiles AdapterOf(const Fields& fields) {
  AdapterFiles adapter;
  adapter.handle = fields.Uint53("handle");
  adapter.digest = DigestFromJs(fields);
  fields.ForEach("paths", [&](Napi::Value file, const std::string& where) {
    adapter.lora.paths.push_back(Fields::ToString(file, where));
  });
  fields.ForEach("targets", [&](Napi::Value target, const std::string& where) {
    adapter.lora.targets.push_back(LoraTargetFromJs({target, where}));
  });
  return adapter;
}

/// Empty, or ascending within tokenBytes, one more than the vocabulary has tokens.
std::vector<uint32_t> TokenOffsetsFromJs(const Fields& fields, const EngineOptions& options) {
  std::vector<uint32_t> offsets = fields.Uint32s("tokenOffsets");
  if (offsets.empty()) return offsets;
  const bool fits = offsets.size() == static_cast<size_t>(options.config.vocab_size) + 1 &&
                    std::is_sorted(offsets.begin(), offsets.end()) &&
                    offsets.back() <= options.token_bytes.size();
  if (!fits) throw fields.ComplaintAt("tokenOffsets", "ascending offsets into tokenBytes");
  return offsets;
}

}  // namespace

EngineOptions OptionsFromJs(Napi::Value value) {
  const Fields fields(value, "options");
  const int32_t version = fields.Int32("apiVersion", 0, kMaxCount);
  if (version != kNativeApiVersion) {
    throw Napi::Error::New(value.Env(), "options.apiVersion is " + std::to_string(version) +
                                            ", the addon speaks " +
                                            std::to_string(kNativeApiVersion) + ": rebuild it");
  }
  EngineOptions options;
  options.config = ConfigFromJs(fields.Object("config"));
  options.checkpoint = CheckpointFromJs(fields.Object("checkpoint"));
  options.device = fields.String("device");
  options.cpu_isa = fields.String("cpuIsa");
  options.weight_format = fields.Word<WeightFormat>("weightFormat", kWeightFormatWords);
  options.kv_dtype = fields.Word<DType>("kvDtype", kKvDTypeWords);
  options.threads = fields.Int32("threads", 0, 4096);
  options.kv_cache_bytes = fields.Uint53("kvCacheBytes");
  options.max_batch_tokens = fields.Int32("maxBatchTokens", 1, 1 << 20);
  options.max_running_sequences = fields.Int32("maxRunningSequences", 1, 1 << 16);
  options.max_steerings_per_request = fields.Int32("maxSteeringsPerRequest", 0, 1 << 10);
  options.capture_staging_bytes = fields.Uint53("captureStagingBytes");
  options.prefix_cache = fields.Bool("prefixCache");
  const std::optional<Fields> merged = fields.ObjectOrNull("mergedAdapter");
  if (merged) options.merged_adapter = AdapterOf(*merged);
  options.max_adapter_bytes = fields.Uint53("maxAdapterBytes");
  options.token_bytes = fields.Bytes("tokenBytes");
  options.token_offsets = TokenOffsetsFromJs(fields, options);
  return options;
}

EngineRequest RequestFromJs(Napi::Value value) {
  const Fields fields(value, "request");
  EngineRequest request;
  request.id = fields.Uint53("id");
  request.prompt_token_ids = fields.Uint32s("promptTokenIds");
  request.completions = fields.Uint32("completions");
  request.max_new_tokens = fields.Uint32("maxNewTokens");
  request.sampling = SamplingFromJs(fields.Object("sampling"));
  fields.ForEach("steering", [&](Napi::Value steering, const std::string& path) {
    request.steering.push_back(SteeringFromJs(steering, path));
  });
  request.capture = CaptureFromJs(fields.ObjectOrNull("capture"));
  if (!fields.IsNull("promptLogprobsFrom")) {
    request.prompt_logprobs_from = fields.Int32("promptLogprobsFrom", 0, kMaxCount);
  }
  request.credits = fields.Uint32("credits");
  request.capture_credit_bytes = fields.Uint53("captureCreditBytes");
  request.proof_prompt_tokens = fields.Int32("proofPromptTokens", 0, kMaxCount);
  request.cache_salt = fields.String("cacheSalt");
  request.deadline_ns = fields.Uint64("deadlineNs");
  request.adapter = fields.Uint53("adapter");
  fields.ForEach("probes", [&](Napi::Value probe, const std::string& path) {
    request.probes.push_back(ProbeFromJs(probe, path));
  });
  request.compare_unsteered = fields.Bool("compareUnsteered");
  return request;
}

VectorRows VectorFromJs(Napi::Value value, int32_t hidden_size) {
  const Fields fields(value, "vector");
  VectorRows vector;
  vector.handle = fields.Uint53("handle");
  vector.digest = DigestFromJs(fields);
  vector.layers = fields.Int32s("layers");
  const std::vector<float> rows = fields.Floats("rows");
  const auto width = static_cast<size_t>(hidden_size);
  if (rows.size() != vector.layers.size() * width) {
    throw fields.ComplaintAt("rows", std::to_string(vector.layers.size()) + " layers of " +
                                         std::to_string(width) + " numbers");
  }
  for (auto row = rows.begin(); row != rows.end(); row += hidden_size) {
    vector.rows.emplace_back(row, row + hidden_size);
  }
  return vector;
}

AdapterFiles AdapterFromJs(Napi::Value value) { return AdapterOf({value, "adapter"}); }

}  // namespace llama_steer
