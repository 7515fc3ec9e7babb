// The engine without its thread: requests in, steps, events out. Driven by one thread.
//   core.cc        life of requests: submit, cancel, grant, deadlines, end
//   core_admit.cc  what a request becomes, or why it is refused
//   core_step.cc   one step: plan, run, read back
//   core_ahead.cc  the next step is begun while one runs
//   core_fork.cc   the prompt's sequence becomes one a completion
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/adapter_table.h"
#include "engine/admission.h"
#include "engine/engine.h"
#include "engine/lens.h"
#include "engine/model_runner.h"
#include "engine/prefix_cache.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/step_batch.h"
#include "engine/vector_table.h"

namespace llama_steer {

/// Rows of logits in a step beyond one for each running sequence: they score prompt tokens.
inline constexpr int32_t kScoreRowsPerStep = 32;

/// The DoneEvent of a request that is not taken on.
DoneEvent RefusalOf(const EngineRequest& request, Status status);

/// Rows of logits that a step needs at most.
int32_t MaxLogitRows(const EngineOptions& options);

class EngineCore {
 public:
  /// `runner` and `sink` outlive the core.
  EngineCore(const EngineOptions& options, ModelRunner& runner, const EventSink& sink);
  ~EngineCore() { (void)Settle(); }
  EngineCore(const EngineCore&) = delete;
  EngineCore& operator=(const EngineCore&) = delete;

  void Submit(EngineRequest request, uint64_t submit_ns);
  void Cancel(RequestId id, int32_t completion);
  void Grant(RequestId id, uint32_t credits, uint64_t capture_bytes);
  void PutVector(const VectorRows& vector) { vectors_.Put(vector); }
  void DropVector(VectorHandle handle) { vectors_.Drop(handle); }
  void PutAdapter(AdapterHandle handle, const Digest& digest, const MappedLora& lora) {
    adapters_.Put(handle, digest, lora);
  }
  void DropAdapter(AdapterHandle handle) { adapters_.Drop(handle); }

  /// Ends what is past its deadline; returns the next deadline, 0 when there is none.
  uint64_t ExpireDeadlines(uint64_t now_ns);
  /// Takes what one step says; on a device that runs ahead the next one may then have begun. False
  /// when nothing can run, and nothing does. A Status that is not ok is a device fault.
  StatusOr<bool> Step();
  /// Ends every request with `status`.
  void EndAll(const Status& status);

  /// Fills what the core knows; recent_batch_tokens and last_step_age_seconds are the thread's.
  void ReadStats(EngineStats& stats) const;
  /// Rows of the last step, without those of sequences that had ended before it.
  int32_t last_step_rows() const { return last_step_rows_; }
  /// Steps that were begun while the one before them ran.
  uint64_t steps_ahead() const { return steps_ahead_; }

 private:
  StatusOr<std::unique_ptr<RequestState>> Admit(EngineRequest& request) const;
  // core_admit.cc
  Status PinAdapter(RequestState& request) const;
  Status PinSteerings(RequestState& request) const;
  Status PinGate(SteeringEntry& entry, const std::string& path) const;
  Status PinProbes(RequestState& request) const;
  Status AddCapture(RequestState& request) const;
  Status AddPrompt(RequestState& request) const;
  Status AddText(RequestState& request, const std::vector<uint8_t>& text, const std::string& path,
                 int32_t& index) const;

  void Refuse(const EngineRequest& request, Status status) const;
  /// Frees the KV of a sequence that will not run again.
  void Retire(Sequence& sequence);
  /// Emits the DoneEvent and frees everything but the object itself, see Sweep().
  void Finish(RequestState& request, Status status);
  Status EmitMeans(RequestState& request);
  /// `rows`: what the events were made of.
  Status EmitActivations(RequestState& request, const CapturedRows& rows,
                         std::vector<ActivationEvent> events);
  /// Drops finished sequences and requests.
  void Sweep();

  // core_step.cc
  void CollectSequences();
  StatusOr<bool> PlanStep();
  void NoteAdmitted(Sequence& sequence);
  void ReadBackStep();
  void ReadBack(const BatchItem& item);
  Status ReadProofs(const BatchItem& item);
  Status EvaluateGates(const BatchItem& item);
  bool MustRecompute(const BatchItem& item) const;
  void Restart(Sequence& sequence);
  Status EmitProbes(const BatchItem& item);
  void CacheFilledBlocks(Sequence& sequence, PositionRange computed);
  Status EmitCaptures(const BatchItem& item);
  Status EmitPromptLogprobs(const BatchItem& item);
  void TakeDraws(const BatchItem& item);
  void TakeToken(Sequence& sequence, SampleResult& result);
  Status CheckResult(const Sequence& sequence, const SampleResult& result) const;

  // core_ahead.cc
  struct DeviceStep {
    StepBatch batch;
    bool begun = false;
    bool awaited = false;  // results and proofs are in the batch
  };
  Status Begin(DeviceStep& step);
  Status BeginNext();
  std::optional<StepPlan> PlanNext();
  Status Await(DeviceStep& step);
  /// Waits for all that runs: the device can then be used for something else than steps.
  Status Settle();

  // core_fork.cc
  void CopyBlocks();
  std::vector<Sequence*> Fork(Sequence& prompt, int32_t draws);
  std::unique_ptr<Sequence> CopySequence(const Sequence& prompt, int32_t completion);
  std::unique_ptr<Sequence> LateSequence(const Sequence& prompt, int32_t completion);
  void ShareBlocks(const Sequence& from, int32_t tokens, Sequence& to);
  void CopyTail(const Sequence& from, Sequence& to);

  ModelRunner& runner_;
  const EventSink& sink_;
  RequestLimits limits_;
  int32_t hidden_size_;
  BlockKeys keys_;
  PrefixCache cache_;
  VectorTable vectors_;
  AdapterTable adapters_;
  Scheduler scheduler_;
  CaptureArea capture_area_;
  std::array<DeviceStep, 2> steps_;
  DeviceStep* step_ = &steps_[0];  // the one that is read back next
  DeviceStep* next_ = &steps_[1];
  RunningDraws running_draws_;
  Lens lens_;
  int64_t max_capture_rows_;
  const std::vector<uint8_t> token_bytes_;
  const std::vector<uint32_t> token_offsets_;
  TokenTexts token_texts_;

  uint64_t next_arrival_ = 0;
  std::map<uint64_t, std::unique_ptr<RequestState>> requests_;  // by arrival
  std::unordered_map<RequestId, RequestState*> by_id_;
  /// Ended, and kept while a step runs that was begun before: its tables point to them.
  struct Ended {
    std::vector<std::unique_ptr<RequestState>> requests;
    std::vector<std::unique_ptr<Sequence>> sequences;
  };
  Ended ended_;
  std::vector<Sequence*> sequences_;     // of the step, oldest first
  std::vector<BlockCopy> block_copies_;  // of the request being forked
  Status device_fault_;                  // of a step, a copy or the lens
  EngineStats counters_;
  int32_t last_step_rows_ = 0;
  uint64_t steps_ahead_ = 0;
};

}  // namespace llama_steer
