// The thread around EngineCore: an inbox of commands in, events out. Nothing is locked while a
// step runs or an event is delivered.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#include "engine/core.h"
#include "engine/engine.h"
#include "engine/model_runner.h"

namespace llama_steer {

class EngineThread final : public Engine {
 public:
  /// Starts the thread; `factory` is called on it.
  EngineThread(EngineOptions options, EventSink sink, RunnerFactory factory);
  ~EngineThread() override { Close(); }

  void Submit(EngineRequest request) override;
  void Cancel(RequestId id, int32_t completion) override;
  void Grant(RequestId id, uint32_t credits, uint64_t capture_bytes) override;
  Status PutVector(VectorRows vector) override;
  void DropVector(VectorHandle handle) override;
  Status PutAdapter(AdapterFiles adapter) override;
  void DropAdapter(AdapterHandle handle) override;
  EngineStats Stats() override;
  void Close() override;

 private:
  enum class State : uint8_t { kLoading, kReady, kClosed, kFailed };
  struct SubmitCommand {
    EngineRequest request;
    uint64_t submit_ns = 0;
  };
  struct CancelCommand {
    RequestId id = 0;
    int32_t completion = 0;
  };
  struct GrantCommand {
    RequestId id = 0;
    uint32_t credits = 0;
    uint64_t capture_bytes = 0;
  };
  struct DropCommand {
    VectorHandle handle = 0;
  };
  struct PutAdapterCommand {
    AdapterHandle handle = kNoAdapter;
    Digest digest{};
    MappedLora lora;
  };
  struct DropAdapterCommand {
    AdapterHandle handle = kNoAdapter;
  };
  using Command = std::variant<SubmitCommand, CancelCommand, GrantCommand, VectorRows, DropCommand,
                               PutAdapterCommand, DropAdapterCommand>;
  struct HeldAdapter {
    Digest digest{};
    uint64_t bytes = 0;
  };
  /// ok to hold it as well; the mutex must be held.
  Status CheckAdapterRoom(uint64_t bytes) const;

  void Send(Command command);
  void Run(const RunnerFactory& factory);
  StatusOr<std::unique_ptr<ModelRunner>> Load(const RunnerFactory& factory);
  StatusOr<std::unique_ptr<ModelRunner>> MakeRunner(const RunnerFactory& factory);
  bool IsClosed();
  /// False when the engine was closed while it loaded.
  bool BecomeReady(const EngineCore& core);
  /// Returns ok when the engine was closed, else the fault.
  Status Serve(EngineCore& core);
  Status Loop(EngineCore& core);
  /// Adds what came since the last step: a queue limit must see a burst as it happens. The mutex
  /// must be held.
  void CountInbox(EngineStats& stats) const;
  bool TakeInbox(std::vector<Command>& commands);
  void Apply(EngineCore& core, std::vector<Command>& commands);
  void Park(uint64_t deadline_ns);
  void PublishStats(const EngineCore& core, int32_t step_rows);
  void RefuseInbox(const Status& status);
  void Fail(const Status& status);
  /// Why nothing is accepted; ok when ready. The mutex must be held.
  Status Unavailable() const;

  const EngineOptions options_;
  const EventSink sink_;

  std::mutex mutex_;  // guards everything down to the thread
  std::condition_variable wake_;
  State state_ = State::kLoading;
  std::vector<Command> inbox_;
  std::unordered_map<VectorHandle, Digest> handles_;
  std::unordered_map<AdapterHandle, HeldAdapter> adapters_;
  uint64_t busy_since_ns_ = 0;  // start of the step, or of work that waits; 0: nothing to do
  EngineStats stats_;

  std::mutex join_mutex_;
  std::thread thread_;
};

}  // namespace llama_steer
