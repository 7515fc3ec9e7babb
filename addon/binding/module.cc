// The addon: one function that opens engines. The contract is src/native/binding.ts.
#include <napi.h>

#include "binding/convert.h"
#include "binding/engine_wrap.h"

namespace llama_steer {
namespace {

/// State of one environment (the main thread or a worker).
struct AddonState {
  Napi::FunctionReference engine_class;
};

Napi::Value OpenEngine(const Napi::CallbackInfo& info) {
  const auto* state = info.Env().GetInstanceData<AddonState>();
  return state->engine_class.New({info[0], info[1]});
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  auto* state = new AddonState;
  state->engine_class = Napi::Persistent(EngineWrap::Define(env));
  env.SetInstanceData(state);
  exports.Set("apiVersion", kNativeApiVersion);
  exports.Set("openEngine", Napi::Function::New<OpenEngine>(env, "openEngine"));
  return exports;
}

NODE_API_MODULE(llama_steer, Init)

}  // namespace
}  // namespace llama_steer
