// Drawing on the device: rows go there as tables, tokens and logprobs come back.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "kernels/sample.h"
#include "uploads.h"

namespace llama_steer::cuda {

class Sampler {
 public:
  Sampler(Uploads& uploads, const Stream& stream) : uploads_(uploads), stream_(stream) {}

  /// Starts drawing from `logits`, `[rows, vocabulary]`.
  Status Start(const float* logits, int64_t vocabulary, std::span<const SampleRow> rows);
  void EndTurn() { turn_ = (turn_ + 1) % kTurns; }
  /// The results of a turn, which has been waited for.
  void Deliver(size_t turn, std::span<const SampleRow> rows, std::span<SampleResult> results) const;
  /// Where the last Start() puts its results.
  const DeviceSampleResult* results() const { return results_.as<DeviceSampleResult>(); }

 private:
  DeviceSampleRow DeviceRow(const SampleRow& row);
  void AddChanges(const SampleRow& row);

  Uploads& uploads_;
  const Stream& stream_;
  std::vector<DeviceSampleRow> rows_;
  std::vector<LogitChange> changes_;
  struct Drawn {
    uint32_t top_stride = 0;
    size_t top_offset_bytes = 0;  // of the top logprobs in the results
    PinnedBuffer results;
  };
  size_t turn_ = 0;
  std::array<Drawn, kTurns> drawn_;
  DeviceBuffer changed_;
  DeviceBuffer results_;
};

}  // namespace llama_steer::cuda
