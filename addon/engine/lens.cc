#include "engine/lens.h"

#include <algorithm>
#include <utility>

namespace llama_steer {

Status Lens::Read(const CaptureState& capture, const CapturedRows& rows,
                  std::vector<ActivationEvent>& events) {
  if (capture.params.lens_top_k == 0) return Status::Ok();
  for (size_t i = 0; i < events.size(); ++i) {
    LLAMA_STEER_RETURN_IF_ERROR(ReadEvent(capture, capture.outputs[i], rows, events[i]));
  }
  return Status::Ok();
}

Status Lens::ReadEvent(const CaptureState& capture, const CaptureOutput& output,
                       const CapturedRows& rows, ActivationEvent& event) {
  const bool normalise = output.site != CaptureSiteKind::kFinalNorm;
  const int64_t stride = capture.rows_per_token() * rows.hidden_size;
  const float* row = rows.staging + output.ordinal * rows.hidden_size;
  while (static_cast<int64_t>(event.lens.size()) < event.rows) {
    const auto left = event.rows - static_cast<int64_t>(event.lens.size());
    const auto count = static_cast<size_t>(std::min<int64_t>(left, max_rows_));
    rows_.clear();
    samples_.clear();
    for (size_t i = 0; i < count; ++i, row += stride) {
      rows_.push_back(row);
      SampleRow& sample = samples_.emplace_back();
      sample.logits_row = static_cast<int32_t>(i);
      sample.forced_token = 0;
      sample.top_logprobs = capture.params.lens_top_k;
    }
    results_.assign(count, {});
    LLAMA_STEER_RETURN_IF_ERROR(runner_.Unembed(rows_, normalise));
    LLAMA_STEER_RETURN_IF_ERROR(runner_.Sample(samples_, results_));
    for (SampleResult& result : results_) {
      if (result.nonfinite) result.top.clear();
      event.lens.push_back(std::move(result.top));
    }
  }
  return Status::Ok();
}

}  // namespace llama_steer
