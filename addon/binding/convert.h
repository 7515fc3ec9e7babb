// The objects of src/native/binding.ts to and from those of the engine, field by field in the same
// order. Reading throws a Napi::TypeError that names the field.
#pragma once

#include <napi.h>

#include "engine/engine.h"

namespace llama_steer {

/// Raised whenever src/native/binding.ts changes.
inline constexpr int32_t kNativeApiVersion = 3;

EngineOptions OptionsFromJs(Napi::Value value);
EngineRequest RequestFromJs(Napi::Value value);
/// `hidden_size`: length of each row.
VectorRows VectorFromJs(Napi::Value value, int32_t hidden_size);
AdapterFiles AdapterFromJs(Napi::Value value);

Napi::Object EventToJs(Napi::Env env, const EngineEvent& event);
Napi::Object StatsToJs(Napi::Env env, const EngineStats& stats);

/// An Error with the numeric `code` of google.rpc.Code.
Napi::Error StatusToJsError(Napi::Env env, const Status& status);

}  // namespace llama_steer
