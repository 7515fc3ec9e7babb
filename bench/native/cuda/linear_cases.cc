// Projections of one block, and the unembedding.
#include <memory>
#include <string>
#include <vector>

#include "cuda/case.h"
#include "kernels/linear.h"

namespace llama_steer::cuda::bench {
namespace {

struct Projection {
  const char* name = nullptr;
  int64_t inputs = 0;
  std::vector<int64_t> outputs;  // one a target
  int32_t max_rows = 0;          // 0: any

  int64_t all_outputs() const {
    int64_t sum = 0;
    for (const int64_t rows : outputs) sum += rows;
    return sum;
  }
};

struct Format {
  DType dtype = DType::kBF16;
  const char* name = nullptr;
  double bytes_a_weight = 0.0;
};
constexpr Format kFormats[] = {{DType::kBF16, "bf16", 2.0},
                               {DType::kInt8, "int8", 1.0 + 2.0 / kInt8GroupSize},
                               {DType::kFp8, "fp8", 1.0}};
constexpr Format kExact = {DType::kF32, "f32", 4.0};

using LinearFunction = cudaError_t (*)(const LinearParams&, cudaStream_t);

Case LinearCase(const char* kernel, LinearFunction function, const Projection& projection,
                const Format& format, int32_t rows) {
  const double weights =
      static_cast<double>(projection.all_outputs()) * static_cast<double>(projection.inputs);
  Case made;
  made.kernel = kernel;
  made.variant = std::string(projection.name) + " " + format.name + " rows=" + std::to_string(rows);
  made.turn_bytes = weights * format.bytes_a_weight;
  const double x_bytes = format.dtype == DType::kF32 ? 4.0 : 2.0;
  made.bytes = made.turn_bytes + rows * (x_bytes * static_cast<double>(projection.inputs) +
                                         4.0 * static_cast<double>(projection.all_outputs()));
  made.flop = 2.0 * weights * rows;
  made.prepare = [=](CaseMemory& memory, int turns) -> Launcher {
    LinearParams params;
    params.x = memory.Activations(rows, projection.inputs);
    params.rows = rows;
    params.target_count = static_cast<int32_t>(projection.outputs.size());
    auto of_turn = std::make_shared<std::vector<LinearParams>>();
    for (int turn = 0; turn < turns; ++turn) {
      for (size_t i = 0; i < projection.outputs.size(); ++i) {
        LinearTargetView& target = params.targets[i];
        target.weight = memory.Weight(format.dtype, projection.outputs[i], projection.inputs);
        if (turn == 0) target.output = memory.Scratch<float>(rows * projection.outputs[i]);
      }
      of_turn->push_back(params);
    }
    return [of_turn, function](int turn, cudaStream_t stream) {
      return function((*of_turn)[static_cast<size_t>(turn)], stream);
    };
  };
  return made;
}

}  // namespace

void AddLinearCases(const BenchShape& shape, std::vector<Case>& cases) {
  constexpr int32_t kMaxLogitRows = 64;
  const std::vector<Projection> projections = {
      {"qkv", shape.hidden, {shape.q_width(), shape.kv_width(), shape.kv_width()}},
      {"o", shape.q_width(), {shape.hidden}},
      {"gate_up", shape.hidden, {shape.intermediate, shape.intermediate}},
      {"down", shape.intermediate, {shape.hidden}},
      {"lm_head", shape.hidden, {shape.vocabulary}, kMaxLogitRows},
  };
  for (const Format& format : kFormats) {
    for (const Projection& projection : projections) {
      for (const int32_t rows : shape.rows) {
        if (projection.max_rows > 0 && rows > projection.max_rows) continue;
        if (rows <= kMaxGemvRows) {
          cases.push_back(LinearCase("LinearGemv", LinearGemv, projection, format, rows));
        }
        // At the border both, so that its place can be judged.
        if (rows >= kMaxGemvRows) {
          cases.push_back(LinearCase("LinearGemm", LinearGemm, projection, format, rows));
        }
      }
    }
  }
  cases.push_back(LinearCase("LinearExact", LinearExact, projections[1], kExact, shape.rows[0]));
}

}  // namespace llama_steer::cuda::bench
