// The logit lens: the most likely tokens of unembed(final_norm(x)) for captured rows x; of
// unembed(x) where x is behind the final norm already. Float32, over the whole vocabulary.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/capture.h"
#include "engine/event.h"
#include "engine/model_runner.h"

namespace llama_steer {

class Lens {
 public:
  /// Reads `max_rows` rows at once.
  Lens(ModelRunner& runner, int32_t max_rows) : runner_(runner), max_rows_(max_rows) {}

  /// Fills `lens` of the events that were made of `rows`, one an output of the capture. An empty
  /// row where its logits are not finite. A Status that is not ok is a device fault.
  Status Read(const CaptureState& capture, const CapturedRows& rows,
              std::vector<ActivationEvent>& events);

 private:
  Status ReadEvent(const CaptureState& capture, const CaptureOutput& output,
                   const CapturedRows& rows, ActivationEvent& event);

  ModelRunner& runner_;
  int32_t max_rows_;
  // Reused from call to call.
  std::vector<const float*> rows_;
  std::vector<SampleRow> samples_;
  std::vector<SampleResult> results_;
};

}  // namespace llama_steer
