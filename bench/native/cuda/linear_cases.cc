// Projections of one block, and the unembedding.
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "cuda/case.h"
#include "kernels/linear.h"
#include "kernels/rope_append.h"

namespace llama_steer::cuda::bench {
namespace {

struct Projection {
  const char* name = nullptr;
  int64_t inputs = 0;
  std::vector<int64_t> outputs;  // one a target
  int32_t max_rows = 0;          // 0: any
  bool is_qkv = false;
  bool is_gate_up = false;

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

/// Launches on projections that are there; what else it works on is its own.
using LinearFunction = std::function<cudaError_t(const LinearParams&, cudaStream_t)>;
struct Operation {
  const char* kernel = nullptr;
  double output_bytes_a_row = 0.0;
  std::function<LinearFunction(CaseMemory& memory, const LinearParams& params)> prepare{};
};

Operation Plain(const char* kernel, cudaError_t (*function)(const LinearParams&, cudaStream_t),
                const Projection& projection) {
  return {.kernel = kernel,
          .output_bytes_a_row = 4.0 * static_cast<double>(projection.all_outputs()),
          .prepare = [function](CaseMemory&, const LinearParams&) -> LinearFunction {
            return function;
          }};
}

/// With blocks that share slices where this device wants it.
Operation Gemm(const Projection& projection) {
  return {.kernel = "LinearGemm",
          .output_bytes_a_row = 4.0 * static_cast<double>(projection.all_outputs()),
          .prepare = [](CaseMemory& memory, const LinearParams& params) -> LinearFunction {
            cudaDeviceProp device{};
            device.multiProcessorCount = 1;
            if (cudaGetDeviceProperties(&device, 0) != cudaSuccess) cudaGetLastError();
            LinearSplit split = SplitOf(params, device.multiProcessorCount);
            if (split.count > 1) {
              constexpr auto kFloatBytes = static_cast<int64_t>(sizeof(float));
              split.partials =
                  memory.Scratch<float>(static_cast<int64_t>(split.partial_bytes()) / kFloatBytes);
              split.arrived = memory.Scratch<unsigned>(split.tiles);
            }
            return [split](const LinearParams& linear, cudaStream_t stream) {
              return LinearGemm({linear, split}, stream);
            };
          }};
}

/// silu(gate) · up, in float32 and rounded.
Operation Gated(const BenchShape& shape, int32_t rows) {
  return {.kernel = "LinearGemvGated",
          .output_bytes_a_row = 6.0 * static_cast<double>(shape.intermediate),
          .prepare = [=](CaseMemory& memory, const LinearParams&) -> LinearFunction {
            const Matrix output = memory.Activations(rows, shape.intermediate);
            return [output](const LinearParams& linear, cudaStream_t stream) {
              return LinearGemvGated({linear, output}, stream);
            };
          }};
}

/// Rows at one position of a sequence each; keys and values to pages of bf16.
Operation Qkv(const BenchShape& shape, int32_t rows) {
  return {.kernel = "LinearGemvQkv",
          .output_bytes_a_row = 4.0 * static_cast<double>(shape.q_width() + shape.kv_width()),
          .prepare = [=](CaseMemory& memory, const LinearParams&) -> LinearFunction {
            std::vector<int32_t> blocks(static_cast<size_t>(rows));
            std::iota(blocks.begin(), blocks.end(), 0);
            RopeAppendParams rope;
            rope.turns = memory.Floats(rows * shape.head_size);
            rope.positions = memory.Upload(std::vector<int32_t>(static_cast<size_t>(rows), 3));
            rope.row_blocks = memory.Upload(blocks);
            rope.rows = rows;
            rope.query_heads = shape.query_heads;
            rope.pages = {nullptr, DType::kBF16, rows, shape.kv_heads, shape.head_size};
            rope.pages.data = memory.Bf16(rope.pages.PageOffset(1, 0, 0));
            return [rope](const LinearParams& linear, cudaStream_t stream) {
              return LinearGemvQkv({linear, rope}, stream);
            };
          }};
}

Case LinearCase(const Operation& operation, const Projection& projection, const Format& format,
                int32_t rows) {
  const double weights =
      static_cast<double>(projection.all_outputs()) * static_cast<double>(projection.inputs);
  Case made;
  made.kernel = operation.kernel;
  made.variant = std::string(projection.name) + " " + format.name + " rows=" + std::to_string(rows);
  made.turn_bytes = weights * format.bytes_a_weight;
  const double x_bytes = format.dtype == DType::kF32 ? 4.0 : 2.0;
  made.bytes = made.turn_bytes + rows * (x_bytes * static_cast<double>(projection.inputs) +
                                         operation.output_bytes_a_row);
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
    const LinearFunction function = operation.prepare(memory, params);
    return [of_turn, function](int turn, cudaStream_t stream) {
      return function((*of_turn)[static_cast<size_t>(turn)], stream);
    };
  };
  return made;
}

/// The kernels that take so many rows.
std::vector<Operation> OperationsOn(const BenchShape& shape, const Projection& projection,
                                    int32_t rows) {
  std::vector<Operation> operations;
  if (rows <= kMaxGemvRows) {
    operations.push_back(Plain("LinearGemv", LinearGemv, projection));
    if (projection.is_qkv) operations.push_back(Qkv(shape, rows));
    if (projection.is_gate_up) operations.push_back(Gated(shape, rows));
  }
  // At the border both, so that its place can be judged.
  if (rows >= kMaxGemvRows) operations.push_back(Gemm(projection));
  return operations;
}

}  // namespace

void AddLinearCases(const BenchShape& shape, std::vector<Case>& cases) {
  constexpr int32_t kMaxLogitRows = 64;
  const std::vector<Projection> projections = {
      {.name = "qkv",
       .inputs = shape.hidden,
       .outputs = {shape.q_width(), shape.kv_width(), shape.kv_width()},
       .is_qkv = true},
      {.name = "o", .inputs = shape.q_width(), .outputs = {shape.hidden}},
      {.name = "gate_up",
       .inputs = shape.hidden,
       .outputs = {shape.intermediate, shape.intermediate},
       .is_gate_up = true},
      {.name = "down", .inputs = shape.intermediate, .outputs = {shape.hidden}},
      {.name = "lm_head",
       .inputs = shape.hidden,
       .outputs = {shape.vocabulary},
       .max_rows = kMaxLogitRows},
  };
  for (const Format& format : kFormats) {
    for (const Projection& projection : projections) {
      for (const int32_t rows : shape.rows) {
        if (projection.max_rows > 0 && rows > projection.max_rows) continue;
        for (const Operation& operation : OperationsOn(shape, projection, rows)) {
          cases.push_back(LinearCase(operation, projection, format, rows));
        }
      }
    }
  }
  const Projection& o = projections[1];
  cases.push_back(LinearCase(Plain("LinearExact", LinearExact, o), o, kExact, shape.rows[0]));
}

}  // namespace llama_steer::cuda::bench
