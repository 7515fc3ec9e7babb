#include "binding/engine_wrap.h"

#include <string>
#include <utility>

#include "binding/convert.h"
#include "binding/fields.h"
#include "binding/open_engines.h"

namespace llama_steer {
namespace {

/// Where an engine object keeps its callback: as a property, the garbage collector sees the cycle
/// callback -> engine -> callback; a reference from here would keep both for ever.
constexpr const char* kCallbackProperty = "onEvents";

constexpr auto kMaxId = static_cast<int64_t>(kMaxSafeInteger);
constexpr auto kMaxGrantBytes = static_cast<int64_t>(kMaxSafeInteger);

/// Calls `callback` with `argument`. What it throws becomes an uncaught exception of the process,
/// as with any event handler.
void CallHandler(Napi::Env env, Napi::Function callback, Napi::Value argument) {
  const napi_value arguments[] = {argument};
  // The C call: its C++ twin cannot build its exception while the environment is terminated.
  if (napi_call_function(env, env.Undefined(), callback, 1, arguments, nullptr) !=
      napi_pending_exception) {
    return;
  }
  napi_value exception = nullptr;
  if (napi_get_and_clear_last_exception(env, &exception) == napi_ok && exception != nullptr) {
    napi_fatal_exception(env, exception);
  }
}

}  // namespace

Napi::Function EngineWrap::Define(Napi::Env env) {
  return DefineClass(env, "NativeEngine",
                     {
                         InstanceMethod<&EngineWrap::Submit>("submit"),
                         InstanceMethod<&EngineWrap::Cancel>("cancel"),
                         InstanceMethod<&EngineWrap::Grant>("grant"),
                         InstanceMethod<&EngineWrap::PutVector>("putVector"),
                         InstanceMethod<&EngineWrap::DropVector>("dropVector"),
                         InstanceMethod<&EngineWrap::PutAdapter>("putAdapter"),
                         InstanceMethod<&EngineWrap::DropAdapter>("dropAdapter"),
                         InstanceMethod<&EngineWrap::Stats>("stats"),
                         InstanceMethod<&EngineWrap::Close>("close"),
                     });
}

EngineWrap::EngineWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineWrap>(info) {
  const Napi::Env env = info.Env();
  EngineOptions options = OptionsFromJs(info[0]);
  if (!info[1].IsFunction()) throw Fields::Complaint(info[1], "onEvents", "a function");
  hidden_size_ = options.config.hidden_size;
  Value().DefineProperty(Napi::PropertyDescriptor::Value(kCallbackProperty, info[1]));

  wake_up_ = WakeUp::New(env, "llama-steer engine", 0, 1, this);
  // Hooks run last in, first out: this one joins the engine thread before the thread-safe function
  // goes away.
  napi_add_env_cleanup_hook(env, AtEnvironmentExit, this);
  outbox_ = std::make_unique<Outbox>([this] { wake_up_.NonBlockingCall(); });
  busy_ = true;  // a thread-safe function starts out holding the event loop
  Ref();
  engine_ = Engine::Open(std::move(options),
                         [this](EngineEvent event) { outbox_->Push(std::move(event)); });
  CloseAtProcessExit(engine_);
}

EngineWrap::~EngineWrap() {
  if (outbox_ == nullptr) return;  // the constructor threw
  napi_remove_env_cleanup_hook(Env(), AtEnvironmentExit, this);
  Release();
}

void EngineWrap::AtEnvironmentExit(void* self) { static_cast<EngineWrap*>(self)->Release(); }

void EngineWrap::EndEngine() {
  if (engine_ == nullptr) return;
  engine_->Close();
  engine_.reset();  // frees the weights
  loading_ = false;
}

void EngineWrap::Release() {
  if (std::exchange(released_, true)) return;
  EndEngine();
  outbox_->Close();
  wake_up_.Abort();
}

void EngineWrap::Deliver(Napi::Env env, Napi::Function, EngineWrap* self, void*) {
  // Without an environment this is only the emptying of a queue: `self` may be gone.
  if (static_cast<napi_env>(env) == nullptr) return;
  try {
    const Napi::HandleScope scope(env);
    const std::vector<EngineEvent> events = self->outbox_->TakeAll();
    if (events.empty()) return;
    Napi::Array array = Napi::Array::New(env, events.size());
    for (size_t i = 0; i < events.size(); ++i) {
      const Napi::HandleScope event_scope(env);
      array.Set(static_cast<uint32_t>(i), EventToJs(env, events[i]));
      self->NoteDelivered(events[i]);
    }
    const auto callback = self->Value().Get(kCallbackProperty).As<Napi::Function>();
    // Last: the handler may let go of the engine.
    self->UpdateBusy();
    CallHandler(env, callback, array);
  } catch (const Napi::Error&) {
    // The environment is being terminated and makes no objects any more.
  }
}

void EngineWrap::NoteDelivered(const EngineEvent& event) {
  if (const auto* done = std::get_if<DoneEvent>(&event)) in_flight_.erase(done->id);
  if (std::holds_alternative<ReadyEvent>(event) || std::holds_alternative<FatalEvent>(event)) {
    loading_ = false;
  }
}

void EngineWrap::UpdateBusy() {
  const bool busy = loading_ || !in_flight_.empty();
  if (released_ || std::exchange(busy_, busy) == busy) return;
  if (busy) {
    wake_up_.Ref(Env());
    Ref();
  } else {
    wake_up_.Unref(Env());
    Unref();
  }
}

void EngineWrap::Submit(const Napi::CallbackInfo& info) {
  EngineRequest request = RequestFromJs(info[0]);
  const RequestId id = request.id;
  if (!in_flight_.insert(id).second) {
    throw Napi::TypeError::New(info.Env(), "request.id: " + std::to_string(id) + " is in use");
  }
  UpdateBusy();
  if (engine_ != nullptr) return engine_->Submit(std::move(request));
  DoneEvent refusal;
  refusal.id = id;
  refusal.status = {StatusCode::kUnavailable, "the engine is closed"};
  refusal.finish_reasons.assign(1, FinishReason::kNone);
  outbox_->Push(std::move(refusal));
}

void EngineWrap::Cancel(const Napi::CallbackInfo& info) {
  const int64_t id = IntegerArgument(info[0], "id", 0, kMaxId);
  const int64_t completion = IntegerArgument(info[1], "completion", INT32_MIN, INT32_MAX);
  if (engine_ == nullptr) return;
  engine_->Cancel(static_cast<RequestId>(id), static_cast<int32_t>(completion));
}

void EngineWrap::Grant(const Napi::CallbackInfo& info) {
  const int64_t id = IntegerArgument(info[0], "id", 0, kMaxId);
  const int64_t credits = IntegerArgument(info[1], "credits", 0, UINT32_MAX);
  const int64_t capture_bytes = IntegerArgument(info[2], "captureBytes", 0, kMaxGrantBytes);
  if (engine_ == nullptr) return;
  engine_->Grant(static_cast<RequestId>(id), static_cast<uint32_t>(credits),
                 static_cast<uint64_t>(capture_bytes));
}

void EngineWrap::PutVector(const Napi::CallbackInfo& info) {
  VectorRows vector = VectorFromJs(info[0], hidden_size_);
  const Status status = engine_ != nullptr
                            ? engine_->PutVector(std::move(vector))
                            : Status(StatusCode::kUnavailable, "the engine is closed");
  if (!status.ok()) throw StatusToJsError(info.Env(), status);
}

void EngineWrap::DropVector(const Napi::CallbackInfo& info) {
  const int64_t handle = IntegerArgument(info[0], "handle", 0, kMaxId);
  if (engine_ != nullptr) engine_->DropVector(static_cast<VectorHandle>(handle));
}

void EngineWrap::PutAdapter(const Napi::CallbackInfo& info) {
  AdapterFiles adapter = AdapterFromJs(info[0]);
  const Status status = engine_ != nullptr
                            ? engine_->PutAdapter(std::move(adapter))
                            : Status(StatusCode::kUnavailable, "the engine is closed");
  if (!status.ok()) throw StatusToJsError(info.Env(), status);
}

void EngineWrap::DropAdapter(const Napi::CallbackInfo& info) {
  const int64_t handle = IntegerArgument(info[0], "handle", 0, kMaxId);
  if (engine_ != nullptr) engine_->DropAdapter(static_cast<AdapterHandle>(handle));
}

Napi::Value EngineWrap::Stats(const Napi::CallbackInfo& info) {
  return StatsToJs(info.Env(), engine_ != nullptr ? engine_->Stats() : EngineStats{});
}

void EngineWrap::Close(const Napi::CallbackInfo&) {
  EndEngine();
  UpdateBusy();
}

}  // namespace llama_steer
