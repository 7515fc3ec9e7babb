// The NativeEngine of src/native/binding.ts: an engine, its outbox and its thread-safe function.
#pragma once

#include <napi.h>

#include <memory>
#include <unordered_set>

#include "binding/outbox.h"
#include "engine/engine.h"

namespace llama_steer {

/// Everything but the outbox is touched on the JavaScript thread only.
///
/// Busy (loading, or a request without its terminal event) keeps both this object and the event
/// loop alive; idle keeps neither, so that a process with an open engine can exit and an engine
/// that nobody holds is collected. Several engines may run on the CPU; a device that can serve only
/// one refuses the second when it is opened, with a "fatal" event.
class EngineWrap final : public Napi::ObjectWrap<EngineWrap> {
 public:
  static Napi::Function Define(Napi::Env env);

  /// (options, onEvents)
  explicit EngineWrap(const Napi::CallbackInfo& info);
  ~EngineWrap() override;

 private:
  static void Deliver(Napi::Env env, Napi::Function, EngineWrap* self, void*);
  using WakeUp = Napi::TypedThreadSafeFunction<EngineWrap, void, &EngineWrap::Deliver>;

  void Submit(const Napi::CallbackInfo& info);
  void Cancel(const Napi::CallbackInfo& info);
  void Grant(const Napi::CallbackInfo& info);
  void PutVector(const Napi::CallbackInfo& info);
  void DropVector(const Napi::CallbackInfo& info);
  void PutAdapter(const Napi::CallbackInfo& info);
  void DropAdapter(const Napi::CallbackInfo& info);
  Napi::Value Stats(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  static void AtEnvironmentExit(void* self);
  /// Ends the engine and joins its thread; its last events lie in the outbox. Idempotent.
  void EndEngine();
  /// The end of this object's part in the environment: nothing is delivered any more.
  void Release();
  void NoteDelivered(const EngineEvent& event);
  void UpdateBusy();

  WakeUp wake_up_;
  std::unique_ptr<Outbox> outbox_;
  std::shared_ptr<Engine> engine_;  // null once closed
  int32_t hidden_size_ = 0;
  bool loading_ = true;
  std::unordered_set<RequestId> in_flight_;
  bool busy_ = false;
  bool released_ = false;
};

}  // namespace llama_steer
