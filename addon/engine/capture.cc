#include "engine/capture.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "backend/backend.h"
#include "support/float_types.h"

namespace llama_steer {
namespace {

/// Residual stream after `block` as later layers see it, or before the steering of the block.
int32_t ResidualSite(int32_t block, bool before_steering) {
  return CaptureSite(
      before_steering ? CapturePoint::kResidualBeforeSteering : CapturePoint::kResidual, block);
}

int32_t DeviceSite(CaptureSiteKind site, int32_t layer, bool before_steering) {
  switch (site) {
    case CaptureSiteKind::kResidPre:
      return layer == 0 ? CaptureSite(CapturePoint::kEmbedding, 0)
                        : ResidualSite(layer - 1, before_steering);
    case CaptureSiteKind::kAttnOut:
      return CaptureSite(CapturePoint::kAttentionDelta, layer);
    case CaptureSiteKind::kMlpOut:
      return CaptureSite(CapturePoint::kMlpDelta, layer);
    case CaptureSiteKind::kResidPost:
      return ResidualSite(layer, before_steering);
    case CaptureSiteKind::kFinalNorm:
      return CaptureSite(CapturePoint::kFinalNorm, layer);
  }
  return 0;
}

void AddOutput(CaptureState& capture, CaptureSiteKind site, int32_t layer) {
  const bool named_before = std::ranges::any_of(capture.outputs, [&](const CaptureOutput& output) {
    return output.site == site && output.layer == layer;
  });
  if (named_before) return;
  const int32_t device_site = DeviceSite(site, layer, capture.params.before_steering);
  auto& sites = capture.device_sites;
  const auto found = std::ranges::find(sites, device_site);
  const auto ordinal = static_cast<int32_t>(found - sites.begin());
  if (found == sites.end()) sites.push_back(device_site);
  capture.outputs.push_back({.site = site, .layer = layer, .ordinal = ordinal});
}

Status CheckCapture(const CaptureParams& params, int32_t model_layers, int32_t computed_end) {
  if (params.sites.empty()) return Status::InvalidArgument("capture names no site");
  for (size_t i = 0; i < params.layers.size(); ++i) {
    const int32_t layer = params.layers[i];
    if (layer < 0 || layer >= model_layers) {
      return Status::InvalidArgument("capture layer " + std::to_string(layer) +
                                     " is outside the model's " + std::to_string(model_layers) +
                                     " layers");
    }
    if (i > 0 && layer <= params.layers[i - 1]) {
      return Status::InvalidArgument("capture layers must ascend");
    }
  }
  const bool needs_layers = std::ranges::any_of(
      params.sites, [](CaptureSiteKind site) { return site != CaptureSiteKind::kFinalNorm; });
  if (needs_layers && params.layers.empty()) {
    return Status::InvalidArgument("capture names no layer");
  }
  if (DTypeBytes(params.dtype) < 2) {
    return Status::InvalidArgument("capture dtype must be float32, bfloat16 or float16");
  }
  if (params.position_begin < 0 || params.position_begin >= params.position_end ||
      params.position_begin >= computed_end) {
    return Status::InvalidArgument("capture positions [" + std::to_string(params.position_begin) +
                                   ", " + std::to_string(params.position_end) +
                                   ") hold none of the " + std::to_string(computed_end) +
                                   " positions that the request computes");
  }
  return Status::Ok();
}

void AppendRow(const float* row, int64_t cols, DType dtype, std::vector<uint8_t>& out) {
  const size_t begin = out.size();
  const auto count = static_cast<size_t>(cols);
  out.resize(begin + count * DTypeBytes(dtype));
  if (dtype == DType::kF32) {
    std::memcpy(out.data() + begin, row, count * sizeof(float));
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    const uint16_t bits = dtype == DType::kBF16 ? Bf16FromFloat(row[i]) : F16FromFloat(row[i]);
    std::memcpy(out.data() + begin + 2 * i, &bits, sizeof(bits));
  }
}

ActivationEvent EventOf(RequestId id, const CaptureState& capture, const CaptureOutput& output,
                        int64_t hidden_size) {
  ActivationEvent event;
  event.id = id;
  event.site = output.site;
  event.layer = output.layer;
  event.dtype = capture.params.dtype;
  event.cols = hidden_size;
  return event;
}

void AddToSums(CaptureState& capture, const CapturedRows& rows) {
  const size_t width =
      static_cast<size_t>(capture.rows_per_token()) * static_cast<size_t>(rows.hidden_size);
  if (capture.sums.empty()) capture.sums.assign(width, 0.0);
  for (size_t t = 0; t < rows.token_ids.size(); ++t) {
    const float* token_rows = rows.staging + t * width;
    for (size_t i = 0; i < width; ++i) capture.sums[i] += static_cast<double>(token_rows[i]);
  }
  if (capture.summed_tokens == 0) capture.first_token = rows.token_ids.front();
  capture.last_token = rows.token_ids.back();
  capture.summed_tokens += static_cast<int32_t>(rows.token_ids.size());
}

}  // namespace

StatusOr<CaptureState> MakeCaptureState(const CaptureParams& params, int32_t model_layers,
                                        int32_t computed_end) {
  LLAMA_STEER_RETURN_IF_ERROR(CheckCapture(params, model_layers, computed_end));
  CaptureState capture;
  capture.params = params;
  capture.computed_end = computed_end;
  capture.waits_for_text = !params.after_text.empty();
  if (!capture.waits_for_text) {
    capture.todo = {params.position_begin, std::min(params.position_end, computed_end)};
    capture.first_position = params.position_begin;
  }
  for (const CaptureSiteKind site : params.sites) {
    if (site == CaptureSiteKind::kFinalNorm) {
      AddOutput(capture, site, model_layers - 1);
      continue;
    }
    for (const int32_t layer : params.layers) AddOutput(capture, site, layer);
  }
  return capture;
}

int64_t EventBytes(const ActivationEvent& event) {
  auto bytes = static_cast<int64_t>(event.data.size());
  for (const auto& row : event.lens) bytes += static_cast<int64_t>(row.size()) * kLensEntryBytes;
  return bytes;
}

int64_t TokenBytes(const CaptureState& capture, int64_t hidden_size) {
  const auto value_bytes = static_cast<int64_t>(DTypeBytes(capture.params.dtype));
  const int64_t row_bytes =
      hidden_size * value_bytes + int64_t{capture.params.lens_top_k} * kLensEntryBytes;
  return static_cast<int64_t>(capture.outputs.size()) * row_bytes;
}

void CaptureState::BeginAfter(int32_t position) {
  if (!waits_for_text) return;
  waits_for_text = false;
  todo = Intersect({params.position_begin, std::min(params.position_end, computed_end)},
                   {position + 1, kOpenEnd});
  first_position = todo.begin;
}

std::vector<ActivationEvent> TakeRows(RequestId id, CaptureState& capture,
                                      const CapturedRows& rows) {
  const auto tokens = static_cast<int32_t>(rows.token_ids.size());
  capture.todo.begin = rows.first_position + tokens;
  std::vector<ActivationEvent> events;
  if (capture.params.mean) {
    AddToSums(capture, rows);
    return events;
  }
  const int64_t token_stride = capture.rows_per_token() * rows.hidden_size;
  for (const CaptureOutput& output : capture.outputs) {
    ActivationEvent event = EventOf(id, capture, output, rows.hidden_size);
    event.rows = tokens;
    event.token_ids.assign(rows.token_ids.begin(), rows.token_ids.end());
    const float* row = rows.staging + output.ordinal * rows.hidden_size;
    for (int32_t t = 0; t < tokens; ++t, row += token_stride) {
      event.positions.push_back(rows.first_position + t);
      AppendRow(row, rows.hidden_size, event.dtype, event.data);
    }
    events.push_back(std::move(event));
  }
  return events;
}

std::vector<ActivationEvent> TakeMeans(RequestId id, CaptureState& capture, int64_t hidden_size) {
  std::vector<ActivationEvent> events;
  if (capture.summed_tokens == 0) return events;
  for (const double sum : capture.sums) {
    capture.means.push_back(static_cast<float>(sum / capture.summed_tokens));
  }
  for (const CaptureOutput& output : capture.outputs) {
    ActivationEvent event = EventOf(id, capture, output, hidden_size);
    event.rows = 1;
    event.positions = {capture.first_position, capture.todo.begin - 1};
    event.token_ids = {capture.first_token, capture.last_token};
    const float* mean = capture.means.data() + output.ordinal * hidden_size;
    AppendRow(mean, hidden_size, event.dtype, event.data);
    events.push_back(std::move(event));
  }
  capture.summed_tokens = 0;
  capture.sums = {};
  return events;
}

}  // namespace llama_steer
