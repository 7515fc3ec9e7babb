#include "sampler.h"

#include <algorithm>

namespace llama_steer::cuda {

/// One change a token: biases of the same token add up, penalties follow.
void Sampler::AddChanges(const SampleRow& row) {
  const bool penalties = row.repetition_penalty != 1.0f || row.presence_penalty != 0.0f ||
                         row.frequency_penalty != 0.0f;
  if (row.bias.empty() && (!penalties || row.seen.empty())) return;
  const auto first = static_cast<std::ptrdiff_t>(changes_.size());
  for (const TokenBias& bias : row.bias) changes_.push_back({bias.token_id, bias.bias, 0, 0});
  if (penalties) {
    for (const SeenToken& seen : row.seen) {
      changes_.push_back({seen.token_id, 0.0f, 1, seen.generated_count});
    }
  }
  const auto begin = changes_.begin() + first;
  std::stable_sort(begin, changes_.end(), [](const LogitChange& a, const LogitChange& b) {
    return a.token_id < b.token_id;
  });
  auto last = begin;
  for (auto next = begin + 1; next < changes_.end(); ++next) {
    if (next->token_id != last->token_id) {
      *++last = *next;
      continue;
    }
    last->bias += next->bias;
    last->seen |= next->seen;
    last->generated_count += next->generated_count;
  }
  changes_.erase(last + 1, changes_.end());
}

DeviceSampleRow Sampler::DeviceRow(const SampleRow& row) {
  const auto begin = static_cast<uint32_t>(changes_.size());
  AddChanges(row);
  return {.logits_row = row.logits_row,
          .forced_token = row.forced_token,
          .temperature = row.temperature,
          .top_p = row.top_p,
          .min_p = row.min_p,
          .top_k = row.top_k,
          .repetition_penalty = row.repetition_penalty,
          .presence_penalty = row.presence_penalty,
          .frequency_penalty = row.frequency_penalty,
          .change_begin = begin,
          .change_end = static_cast<uint32_t>(changes_.size()),
          .seed = row.seed,
          .completion = row.completion,
          .position = row.position,
          .logprob = row.logprob,
          .top_logprobs = row.top_logprobs,
          .reference_row = row.reference_row};
}

Status Sampler::Start(const float* logits, int64_t vocabulary, std::span<const SampleRow> rows) {
  rows_.clear();
  changes_.clear();
  Drawn& drawn = drawn_[turn_];
  drawn.top_stride = 0;
  for (const SampleRow& row : rows) {
    rows_.push_back(DeviceRow(row));
    drawn.top_stride = std::max(
        drawn.top_stride, static_cast<uint32_t>(std::min<int64_t>(row.top_logprobs, vocabulary)));
  }
  const size_t count = rows.size();
  SampleParams params;
  params.logits = logits;
  params.vocabulary = static_cast<int32_t>(vocabulary);
  params.row_count = static_cast<int32_t>(count);
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<DeviceSampleRow>(rows_, params.rows));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<LogitChange>(changes_, params.changes));
  if (!changes_.empty()) {
    LLAMA_STEER_RETURN_IF_ERROR(
        changed_.Reserve(count * static_cast<size_t>(vocabulary) * sizeof(float)));
  }
  drawn.top_offset_bytes = count * sizeof(DeviceSampleResult);
  const size_t bytes =
      drawn.top_offset_bytes + count * drawn.top_stride * sizeof(DeviceTokenLogprob);
  LLAMA_STEER_RETURN_IF_ERROR(results_.Reserve(bytes));
  LLAMA_STEER_RETURN_IF_ERROR(drawn.results.Reserve(bytes));
  params.changed = changed_.as<float>();
  params.results = results_.as<DeviceSampleResult>();
  params.top =
      reinterpret_cast<DeviceTokenLogprob*>(results_.as<std::byte>() + drawn.top_offset_bytes);
  params.top_stride = drawn.top_stride;
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cuda::Sample(params, stream_), "sampling"));
  return ToStatus(cudaMemcpyAsync(drawn.results.as<void>(), results_.as<void>(), bytes,
                                  cudaMemcpyDeviceToHost, stream_),
                  "fetching sampled tokens");
}

void Sampler::Deliver(size_t turn, std::span<const SampleRow> rows,
                      std::span<SampleResult> results) const {
  const Drawn& from = drawn_[turn];
  const auto* drawn = from.results.as<DeviceSampleResult>();
  const auto* top = reinterpret_cast<const DeviceTokenLogprob*>(from.results.as<std::byte>() +
                                                                from.top_offset_bytes);
  for (size_t i = 0; i < rows.size(); ++i) {
    results[i] = {};
    if (rows[i].reference_row >= 0) results[i].kl = drawn[i].kl;
    results[i].nonfinite = drawn[i].nonfinite != 0;
    if (results[i].nonfinite) continue;
    results[i].token_id = drawn[i].token_id;
    results[i].logprob = drawn[i].logprob;
    const uint32_t count = std::min(rows[i].top_logprobs, from.top_stride);
    for (uint32_t j = 0; j < count; ++j) {
      const DeviceTokenLogprob& token = top[i * from.top_stride + j];
      results[i].top.push_back({token.token_id, token.logprob});
    }
  }
}

}  // namespace llama_steer::cuda
