// Drawing on the device: rows go there as tables, tokens and logprobs come back.
#pragma once

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
  /// The results; the stream has been waited for.
  void Deliver(std::span<const SampleRow> rows, std::span<SampleResult> results) const;

 private:
  DeviceSampleRow DeviceRow(const SampleRow& row);
  void AddChanges(const SampleRow& row);

  Uploads& uploads_;
  const Stream& stream_;
  std::vector<DeviceSampleRow> rows_;
  std::vector<LogitChange> changes_;
  uint32_t top_stride_ = 0;
  size_t top_offset_bytes_ = 0;  // of the top logprobs in the results
  DeviceBuffer changed_;
  DeviceBuffer results_;
  PinnedBuffer host_results_;
};

}  // namespace llama_steer::cuda
