// Engine -> JavaScript.
#include <algorithm>
#include <string>

#include "binding/convert.h"
#include "binding/words.h"

namespace llama_steer {
namespace {

/// Counters stay below 2^53.
Napi::Number Count(Napi::Env env, uint64_t value) {
  return Napi::Number::New(env, static_cast<double>(value));
}

template <typename Enum, size_t kCount>
Napi::String WordOf(Napi::Env env, const std::pair<std::string_view, Enum> (&words)[kCount],
                    Enum value) {
  const auto* found =
      std::find_if(words, words + kCount, [&](const auto& word) { return word.second == value; });
  return Napi::String::New(env, found == words + kCount ? "" : found->first.data());
}

template <typename Item, typename ToJs>
Napi::Array ArrayOf(Napi::Env env, const std::vector<Item>& items, const ToJs& to_js) {
  Napi::Array array = Napi::Array::New(env, items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    array.Set(static_cast<uint32_t>(i), to_js(env, items[i]));
  }
  return array;
}

template <typename T>
Napi::TypedArrayOf<T> Typed(Napi::Env env, const std::vector<T>& items) {
  auto array = Napi::TypedArrayOf<T>::New(env, items.size());
  std::copy(items.begin(), items.end(), array.Data());
  return array;
}

Napi::Object ObjectOfType(Napi::Env env, const char* type) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("type", type);
  return object;
}

Napi::Object StatusToJs(Napi::Env env, const Status& status) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("code", static_cast<double>(status.code()));
  object.Set("message", status.message());
  return object;
}

Napi::Object LogprobToJs(Napi::Env env, const TokenLogprob& logprob) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("tokenId", logprob.token_id);
  object.Set("logprob", logprob.logprob);
  return object;
}

Napi::Object ScoredTokenToJs(Napi::Env env, const ScoredToken& token) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("tokenId", token.token_id);
  object.Set("logprob", token.logprob);
  object.Set("top", ArrayOf(env, token.top, LogprobToJs));
  return object;
}

Napi::Object AppliedToJs(Napi::Env env, const AppliedSteeringReport& report) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("promptTokens", report.prompt_tokens);
  object.Set("generatedTokens", report.generated_tokens);
  object.Set("steeredRows", Count(env, report.steered_rows));
  object.Set("meanDeltaRatio", report.mean_delta_ratio);
  object.Set("gateEvaluations", Count(env, report.gate_evaluations));
  object.Set("gateFired", Count(env, report.gate_fired));
  object.Set("firstPositions", Typed(env, report.first_positions));
  return object;
}

Napi::Object TimingsToJs(Napi::Env env, const RequestTimings& timings) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("queueNs", Count(env, timings.queue_ns));
  object.Set("prefillNs", Count(env, timings.prefill_ns));
  object.Set("decodeNs", Count(env, timings.decode_ns));
  object.Set("timeToFirstTokenNs", Count(env, timings.time_to_first_token_ns));
  return object;
}

Napi::Object ToJs(Napi::Env env, const LoadProgressEvent& event) {
  Napi::Object object = ObjectOfType(env, "load_progress");
  object.Set("doneBytes", Count(env, event.done_bytes));
  object.Set("totalBytes", Count(env, event.total_bytes));
  return object;
}

Napi::Object ToJs(Napi::Env env, const ReadyEvent& event) {
  Napi::Object device = Napi::Object::New(env);
  device.Set("kind", event.device.kind);
  device.Set("name", event.device.name);
  device.Set("isa", event.device.isa);
  device.Set("threads", event.device.threads);
  Napi::Object object = ObjectOfType(env, "ready");
  object.Set("device", device);
  object.Set("deviceFallback", event.device_fallback);
  object.Set("weightDtype", event.weight_dtype);
  object.Set("kvDtype", event.kv_dtype);
  object.Set("weightBytes", Count(env, event.weight_bytes));
  object.Set("kvBytes", Count(env, event.kv_bytes));
  object.Set("kvBlocks", event.kv_blocks);
  object.Set("kvBlockTokens", event.kv_block_tokens);
  return object;
}

Napi::Object ToJs(Napi::Env env, const FatalEvent& event) {
  Napi::Object object = ObjectOfType(env, "fatal");
  object.Set("status", StatusToJs(env, event.status));
  return object;
}

Napi::Object ToJs(Napi::Env env, const PromptLogprobsEvent& event) {
  Napi::Object object = ObjectOfType(env, "prompt_logprobs");
  object.Set("id", Count(env, event.id));
  object.Set("firstPosition", event.first_position);
  object.Set("tokens", ArrayOf(env, event.tokens, ScoredTokenToJs));
  return object;
}

Napi::Object ToJs(Napi::Env env, const TokenEvent& event) {
  Napi::Object object = ObjectOfType(env, "token");
  object.Set("id", Count(env, event.id));
  object.Set("completion", event.completion);
  object.Set("token", ScoredTokenToJs(env, event.token));
  object.Set("hasLogprob", event.has_logprob);
  object.Set("finish", WordOf(env, kFinishReasonWords, event.finish));
  object.Set("klToUnsteered", event.kl_to_unsteered
                                  ? Napi::Value(Napi::Number::New(env, *event.kl_to_unsteered))
                                  : env.Null());
  return object;
}

Napi::Object ToJs(Napi::Env env, const ProbeScoresEvent& event) {
  Napi::Object object = ObjectOfType(env, "probe_scores");
  object.Set("id", Count(env, event.id));
  object.Set("completion", event.completion);
  object.Set("probe", event.probe);
  object.Set("positions", Typed(env, event.positions));
  object.Set("scores", Typed(env, event.scores));
  return object;
}

Napi::Object ToJs(Napi::Env env, const ActivationEvent& event) {
  Napi::Object object = ObjectOfType(env, "activations");
  object.Set("id", Count(env, event.id));
  object.Set("site", WordOf(env, kCaptureSiteWords, event.site));
  object.Set("layer", event.layer);
  object.Set("positions", Typed(env, event.positions));
  object.Set("tokenIds", Typed(env, event.token_ids));
  object.Set("dtype", WordOf(env, kDTypeWords, event.dtype));
  object.Set("rows", static_cast<double>(event.rows));
  object.Set("cols", static_cast<double>(event.cols));
  // A copy: the serialisation that follows copies anyway, and no finalizer outlives the engine.
  object.Set("data", Typed(env, event.data));
  object.Set("lens",
             ArrayOf(env, event.lens, [](Napi::Env inner, const std::vector<TokenLogprob>& row) {
               return ArrayOf(inner, row, LogprobToJs);
             }));
  object.Set("completion", event.completion);
  return object;
}

Napi::Object ToJs(Napi::Env env, const DoneEvent& event) {
  Napi::Object object = ObjectOfType(env, "done");
  object.Set("id", Count(env, event.id));
  object.Set("status", StatusToJs(env, event.status));
  object.Set("finishReasons",
             ArrayOf(env, event.finish_reasons, [](Napi::Env inner, FinishReason reason) {
               return WordOf(inner, kFinishReasonWords, reason);
             }));
  object.Set("promptTokens", event.prompt_tokens);
  object.Set("cachedPromptTokens", event.cached_prompt_tokens);
  object.Set("completionTokens", event.completion_tokens);
  object.Set("timings", TimingsToJs(env, event.timings));
  object.Set("applied", ArrayOf(env, event.applied, AppliedToJs));
  return object;
}

}  // namespace

Napi::Object EventToJs(Napi::Env env, const EngineEvent& event) {
  return std::visit([env](const auto& concrete) { return ToJs(env, concrete); }, event);
}

Napi::Object StatsToJs(Napi::Env env, const EngineStats& stats) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("waitingRequests", stats.waiting_requests);
  object.Set("runningRequests", stats.running_requests);
  object.Set("waitingPromptTokens", Count(env, stats.waiting_prompt_tokens));
  object.Set("kvBlocks", stats.kv_blocks);
  object.Set("kvBlocksUsed", stats.kv_blocks_used);
  object.Set("kvBlocksCached", stats.kv_blocks_cached);
  object.Set("steps", Count(env, stats.steps));
  object.Set("lastStepAgeSeconds", stats.last_step_age_seconds);
  object.Set("preemptions", Count(env, stats.preemptions));
  object.Set("promptTokens", Count(env, stats.prompt_tokens));
  object.Set("cachedPromptTokens", Count(env, stats.cached_prompt_tokens));
  object.Set("generatedTokens", Count(env, stats.generated_tokens));
  object.Set("nonfiniteRows", Count(env, stats.nonfinite_rows));
  object.Set("captureBytes", Count(env, stats.capture_bytes));
  object.Set("residentVectors", stats.resident_vectors);
  object.Set("residentVectorBytes", Count(env, stats.resident_vector_bytes));
  object.Set("residentAdapters", stats.resident_adapters);
  object.Set("residentAdapterBytes", Count(env, stats.resident_adapter_bytes));
  object.Set("gateEvaluations", Count(env, stats.gate_evaluations));
  object.Set("gateFired", Count(env, stats.gate_fired));
  object.Set("recentBatchTokens",
             ArrayOf(env, stats.recent_batch_tokens, [](Napi::Env inner, uint32_t rows) {
               return Napi::Number::New(inner, rows);
             }));
  return object;
}

Napi::Error StatusToJsError(Napi::Env env, const Status& status) {
  Napi::Error error = Napi::Error::New(env, status.message());
  error.Value().Set("code", static_cast<double>(status.code()));
  return error;
}

}  // namespace llama_steer
