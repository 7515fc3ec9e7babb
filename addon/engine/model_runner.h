// What the engine needs of a loaded model: steps over tables, nothing else. LlamaRunner is the
// real one; tests drive the engine with a model of their own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "backend/backend.h"
#include "model/lora.h"

namespace llama_steer {

struct ModelInfo {
  DeviceInfo device;
  std::string device_fallback;  // why "auto" came to the CPU; empty: it did not
  std::string weight_dtype;
  uint64_t weight_bytes = 0;
  KvCacheShape kv;
  uint64_t kv_bytes = 0;
};

/// One forward pass. Every table stays valid and unchanged until Sync(), Sample() or AwaitStep()
/// returned.
struct ForwardStep {
  StepTables tables;
  std::span<const int32_t> logit_rows;     // rows of the step whose logits are wanted
  const SteerTables* steering = nullptr;   // null: no row is steered
  const CaptureTables* capture = nullptr;  // null: no row is captured
  std::span<const AdapterRows> adapters;   // other rows are the base model's
  const ProbeTables* probes = nullptr;     // null: no row is probed
};

/// Driven by one thread. A Status that is not ok is a device fault: the engine ends.
class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  virtual const ModelInfo& info() const = 0;
  virtual StatusOr<int32_t> PutVectorRow(std::span<const float> row) = 0;
  virtual void DropVectorRow(int32_t row) = 0;
  /// Copies an adapter to the device; its number is used again after DropAdapter.
  virtual StatusOr<int32_t> PutAdapter(const MappedLora& lora) = 0;
  virtual void DropAdapter(int32_t adapter) = 0;
  virtual Status Forward(const ForwardStep& step) = 0;
  /// Logits of rows in host memory, `[hidden_size]` each and no more of them than a step has logit
  /// rows or rows; behind the final norm when `normalise`. They take the place of the last
  /// Forward's.
  virtual Status Unembed(std::span<const float* const> rows, bool normalise) = 0;
  /// `rows[i].logits_row` counts in the logit_rows of the last Forward, or in the rows of the last
  /// Unembed. Complete on return.
  virtual Status Sample(std::span<const SampleRow> rows, std::span<SampleResult> results) = 0;
  /// Whether a step may be begun while another runs. It then ends with BeginSample, waits for
  /// AwaitStep, and StepTables::drawn may name results that nobody has seen yet.
  virtual bool runs_ahead() const { return false; }
  /// Sample and Sync in two parts, see Backend. Between them no function above is called but
  /// Forward, and those that put and drop vectors and adapters.
  virtual Status BeginSample(std::span<const SampleRow> /*rows*/) {
    return Status::Internal("this model does not run ahead");
  }
  virtual Status AwaitStep(std::span<const SampleRow> /*rows*/,
                           std::span<SampleResult> /*results*/) {
    return Status::Internal("this model does not run ahead");
  }
  virtual Status CopyKvBlocks(std::span<const BlockCopy> copies) = 0;
  /// Proofs, captures and copies are done when it returns.
  virtual Status Sync() = 0;
};

/// False: the engine was closed, loading must stop.
using RunnerProgress = std::function<bool(uint64_t done_bytes, uint64_t total_bytes)>;
/// Called once, on the engine thread.
using RunnerFactory =
    std::function<StatusOr<std::unique_ptr<ModelRunner>>(const RunnerProgress& progress)>;

}  // namespace llama_steer
