// A model that runs ahead of the host as a device does: what it is given to do is done later, by
// the model inside. Tables that change or go before a step has been awaited are found out, and so
// is a host that takes what a step has not said yet.
#pragma once

#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/model_runner.h"

namespace llama_steer {

enum class Pace : uint8_t {
  kLate,    // nothing is done before somebody waits for it
  kAtOnce,  // on another thread, while the host goes on
};

class AheadRunner final : public ModelRunner {
 public:
  AheadRunner(std::unique_ptr<ModelRunner> inner, Pace pace)
      : inner_(std::move(inner)), pace_(pace) {}

  ModelRunner& inner() { return *inner_; }
  /// Steps that were begun while another one ran.
  uint64_t steps_ahead() const { return steps_ahead_; }
  /// Rows in them whose token nobody had seen.
  uint64_t unseen_rows() const { return unseen_rows_; }

  const ModelInfo& info() const override { return inner_->info(); }
  StatusOr<int32_t> PutVectorRow(std::span<const float> row) override;
  void DropVectorRow(int32_t row) override;
  StatusOr<int32_t> PutAdapter(const MappedLora& lora) override;
  void DropAdapter(int32_t adapter) override;
  Status Forward(const ForwardStep& step) override;
  Status Unembed(std::span<const float* const> rows, bool normalise) override;
  Status Sample(std::span<const SampleRow> rows, std::span<SampleResult> results) override;
  Status CopyKvBlocks(std::span<const BlockCopy> copies) override;
  Status Sync() override;
  bool runs_ahead() const override { return true; }
  Status BeginSample(std::span<const SampleRow> rows) override;
  Status AwaitStep(std::span<const SampleRow> rows, std::span<SampleResult> results) override;

 private:
  struct Begun {
    ForwardStep step;
    std::span<const SampleRow> rows;
    std::vector<SampleResult> results;
    std::shared_future<Status> done;
  };
  Status Run(Begun& begun);
  /// Ok when no step runs.
  Status Idle() const;

  std::mutex mutex_;  // of `inner_` and `drawn_`
  std::unique_ptr<ModelRunner> inner_;
  std::vector<uint32_t> drawn_;  // by the last step that has run
  const Pace pace_;
  ForwardStep open_;
  size_t last_rows_ = 0;  // of the last BeginSample
  std::deque<Begun> begun_;
  uint64_t steps_ahead_ = 0;
  uint64_t unseen_rows_ = 0;
};

}  // namespace llama_steer
