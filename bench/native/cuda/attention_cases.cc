// Attention over pages that lie in no order. Keys and values alternate by layer.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda/case.h"
#include "kernels/attention.h"

namespace llama_steer::cuda::bench {
namespace {

/// Bytes of keys and values of one token in one layer.
double TokenBytes(const BenchShape& shape, DType dtype) {
  return 2.0 * static_cast<double>(shape.kv_width()) * static_cast<double>(DTypeBytes(dtype));
}

/// Query and output of one row, the rounded output included.
double RowBytes(const BenchShape& shape) { return 10.0 * static_cast<double>(shape.q_width()); }

/// `sequences` of `tokens` tokens, of which the last `rows` are queries; `layers` of them.
AttentionParams Pages(const BenchShape& shape, CaseMemory& memory, DType dtype, int32_t sequences,
                      int32_t tokens, int32_t rows, int32_t layers) {
  const int32_t blocks_each = (tokens + kPageTokens - 1) / kPageTokens;
  const int32_t blocks = sequences * blocks_each;
  std::vector<int32_t> table(static_cast<size_t>(blocks));
  std::iota(table.begin(), table.end(), 0);
  std::shuffle(table.begin(), table.end(), std::mt19937(1));
  std::vector<SequenceSpan> spans;
  for (int32_t i = 0; i < sequences; ++i) {
    spans.push_back({i * rows, rows, tokens - rows, i * blocks_each});
  }
  const Matrix output = memory.Activations(int64_t{sequences} * rows, shape.q_width());
  AttentionParams params;
  params.q = memory.Floats(int64_t{sequences} * rows * shape.q_width());
  params.output = output.values;
  params.rounded = output.rounded;
  params.rounded_stride = output.rounded_stride;
  params.spans = memory.Upload(spans);
  params.block_table = memory.Upload(table);
  params.pages = {nullptr, dtype, blocks, shape.kv_heads, shape.head_size};
  const int64_t values = int64_t{layers} * blocks * shape.kv_heads * params.pages.page_values();
  if (dtype == DType::kBF16) {
    params.pages.data = memory.Bf16(values);
  } else {
    params.pages.data = memory.Floats(values);
  }
  params.query_heads = shape.query_heads;
  params.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_size));
  return params;
}

/// Multiply-adds of scores and of sums, for the pairs of query and key that causality leaves.
double CausalFlop(const BenchShape& shape, double rows, double context) {
  const double pairs = rows * (context + 0.5 * (rows + 1.0));
  return 4.0 * pairs * static_cast<double>(shape.q_width());
}

std::string SpanText(const PrefillSpan& span) {
  return "rows=" + std::to_string(span.rows) + " context=" + std::to_string(span.context);
}

Case PrefillCase(const BenchShape& shape, const PrefillSpan& span) {
  const int32_t tokens = span.rows + span.context;
  Case made;
  made.kernel = "AttentionPrefill";
  made.variant = SpanText(span);
  made.turn_bytes = tokens * TokenBytes(shape, DType::kBF16);
  made.bytes = made.turn_bytes + span.rows * RowBytes(shape);
  made.flop = CausalFlop(shape, span.rows, span.context);
  made.prepare = [=](CaseMemory& memory, int turns) -> Launcher {
    std::vector<PrefillItem> items;
    const int32_t group = shape.query_heads / shape.kv_heads;
    for (int32_t first = 0; first < span.rows * group; first += kPrefillRows) {
      items.push_back({0, first});
    }
    AttentionPrefillParams params;
    params.common = Pages(shape, memory, DType::kBF16, 1, tokens, span.rows, turns);
    params.items = memory.Upload(items);
    params.item_count = static_cast<int32_t>(items.size());
    return [params](int turn, cudaStream_t stream) mutable {
      params.common.layer = turn;
      return AttentionPrefill(params, stream);
    };
  };
  return made;
}

/// One query each of so many sequences, without what it is prepared by.
Case DecodeOver(const char* kernel, const BenchShape& shape, const DecodeBatch& batch,
                DType pages) {
  Case made;
  made.kernel = kernel;
  made.variant =
      "streams=" + std::to_string(batch.streams) + " context=" + std::to_string(batch.context);
  made.turn_bytes = batch.streams * (batch.context * TokenBytes(shape, pages));
  made.bytes = made.turn_bytes + batch.streams * RowBytes(shape);
  made.flop = batch.streams * CausalFlop(shape, 1.0, batch.context - 1.0);
  return made;
}

/// 0, 1, …: item i is that of sequence i.
const int32_t* Numbers(CaseMemory& memory, int32_t count) {
  std::vector<int32_t> numbers(static_cast<size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0);
  return memory.Upload(numbers);
}

Case DecodeCase(const BenchShape& shape, const DecodeBatch& batch) {
  Case made = DecodeOver("AttentionDecode", shape, batch, DType::kBF16);
  made.prepare = [=](CaseMemory& memory, int turns) -> Launcher {
    AttentionDecodeParams params;
    params.common = Pages(shape, memory, DType::kBF16, batch.streams, batch.context, 1, turns);
    params.items = Numbers(memory, batch.streams);
    params.item_count = batch.streams;
    params.max_splits = (batch.context - 1) / kSplitTokens + 1;
    const int64_t states =
        int64_t{batch.streams} * shape.kv_heads * params.max_splits * kDecodeRows;
    params.states = memory.Scratch<SplitState>(states);
    params.sums = memory.Scratch<float>(states * shape.head_size);
    return [params](int turn, cudaStream_t stream) mutable {
      params.common.layer = turn;
      return AttentionDecode(params, stream);
    };
  };
  return made;
}

/// float32 pages, for which there is the plain kernel.
Case ExactCase(const BenchShape& shape, const DecodeBatch& batch) {
  Case made = DecodeOver("AttentionExact", shape, batch, DType::kF32);
  made.variant = "f32 " + made.variant;
  made.prepare = [=](CaseMemory& memory, int turns) -> Launcher {
    AttentionExactParams params;
    params.common = Pages(shape, memory, DType::kF32, batch.streams, batch.context, 1, turns);
    params.row_spans = Numbers(memory, batch.streams);
    params.rows = batch.streams;
    return [params](int turn, cudaStream_t stream) mutable {
      params.common.layer = turn;
      return AttentionExact(params, stream);
    };
  };
  return made;
}

}  // namespace

void AddAttentionCases(const BenchShape& shape, std::vector<Case>& cases) {
  for (const PrefillSpan& span : shape.prefill) cases.push_back(PrefillCase(shape, span));
  for (const DecodeBatch& batch : shape.decode) cases.push_back(DecodeCase(shape, batch));
  cases.push_back(ExactCase(shape, shape.decode.front()));
}

}  // namespace llama_steer::cuda::bench
