// Drawing tokens from logits that spread over some 24 nats.
#include <string>
#include <vector>

#include "cuda/case.h"
#include "kernels/sample.h"

namespace llama_steer::cuda::bench {
namespace {

constexpr float kLogitScale = 12.0f;

struct Draw {
  const char* name = nullptr;
  float temperature = 0.8f;
  uint32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  uint32_t top_logprobs = 0;
};
constexpr Draw kDraws[] = {
    {.name = "greedy", .temperature = 0.0f},
    {.name = "temperature"},
    {.name = "top-p 0.95", .top_p = 0.95f},
    {.name = "top-k 50, top-p 0.95", .top_k = 50, .top_p = 0.95f},
    {.name = "min-p 0.05", .min_p = 0.05f},
    {.name = "greedy, 20 logprobs", .temperature = 0.0f, .top_logprobs = 20},
};

Case SampleCase(const BenchShape& shape, const Draw& draw, int32_t rows) {
  Case made;
  made.kernel = "Sample";
  made.variant = std::string(draw.name) + " rows=" + std::to_string(rows);
  made.bytes = 4.0 * rows * static_cast<double>(shape.vocabulary);
  made.turn_bytes = made.bytes;
  made.prepare = [=](CaseMemory& memory, int turns) -> Launcher {
    std::vector<DeviceSampleRow> all;
    for (int32_t row = 0; row < rows; ++row) {
      all.push_back({.logits_row = row,
                     .temperature = draw.temperature,
                     .top_p = draw.top_p,
                     .min_p = draw.min_p,
                     .top_k = draw.top_k,
                     .seed = 1,
                     .position = static_cast<uint32_t>(row),
                     .logprob = draw.top_logprobs > 0,
                     .top_logprobs = draw.top_logprobs});
    }
    SampleParams params;
    const int64_t stride = rows * shape.vocabulary;
    params.logits = memory.Floats(turns * stride, kLogitScale);
    params.vocabulary = static_cast<int32_t>(shape.vocabulary);
    params.rows = memory.Upload(all);
    params.row_count = rows;
    params.results = memory.Scratch<DeviceSampleResult>(rows);
    params.top_stride = draw.top_logprobs;
    params.top = memory.Scratch<DeviceTokenLogprob>(int64_t{rows} * (1 + draw.top_logprobs));
    return [params, stride](int turn, cudaStream_t stream) {
      SampleParams of_turn = params;
      of_turn.logits += turn * stride;
      return Sample(of_turn, stream);
    };
  };
  return made;
}

}  // namespace

void AddSampleCases(const BenchShape& shape, std::vector<Case>& cases) {
  constexpr int32_t kMaxDraws = 64;
  for (const Draw& draw : kDraws) {
    for (const int32_t rows : shape.steps) {
      if (rows <= kMaxDraws) cases.push_back(SampleCase(shape, draw, rows));
    }
  }
}

}  // namespace llama_steer::cuda::bench
