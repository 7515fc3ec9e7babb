// What works on rows one by one: embedding, rotation, SiLU, copies, adapters.
#include <numeric>
#include <string>
#include <vector>

#include "cuda/case.h"
#include "kernels/copy_rows.h"
#include "kernels/embed.h"
#include "kernels/lora.h"
#include "kernels/rope_append.h"
#include "kernels/silu_mul.h"

namespace llama_steer::cuda::bench {
namespace {

constexpr int32_t kLoraRank = 16;
constexpr int64_t kFarApart = 7919;  // prime: rows that a step touches lie far from each other

std::string Rows(int32_t rows) { return "rows=" + std::to_string(rows); }

std::vector<int32_t> Scattered(int32_t count, int64_t of, int64_t first) {
  std::vector<int32_t> indices;
  for (int64_t i = 0; i < count; ++i) {
    indices.push_back(static_cast<int32_t>((first + i * kFarApart) % of));
  }
  return indices;
}

Case EmbedCase(const BenchShape& shape, int32_t rows) {
  Case made{.kernel = "Embed", .variant = Rows(rows)};
  made.bytes = 6.0 * rows * static_cast<double>(shape.hidden);
  made.turn_bytes = 2.0 * rows * static_cast<double>(shape.hidden);
  made.prepare = [=](CaseMemory& memory, int turns) -> Launcher {
    EmbedParams params;
    params.table = memory.Weight(DType::kBF16, shape.vocabulary, shape.hidden);
    params.token_ids = memory.Upload(Scattered(turns * rows, shape.vocabulary, 1));
    params.rows = rows;
    params.residual = memory.Activations(rows, shape.hidden);
    return [params](int turn, cudaStream_t stream) {
      EmbedParams of_turn = params;
      of_turn.token_ids += turn * params.rows;
      return Embed(of_turn, stream);
    };
  };
  return made;
}

Case RopeTurnsCase(const BenchShape& shape, int32_t rows) {
  Case made{.kernel = "RopeTurns", .variant = Rows(rows)};
  made.bytes = 4.0 * rows * shape.head_size;
  made.prepare = [=](CaseMemory& memory, int) -> Launcher {
    RopeTurnsParams params;
    params.positions = memory.Upload(Scattered(rows, shape.vocabulary, 1));
    params.rows = rows;
    params.pairs = shape.head_size / 2;
    params.inverse_frequencies = memory.Floats(params.pairs, 0.01f, 0.5f);
    params.turns = memory.Scratch<float>(rows * shape.head_size);
    return [params](int, cudaStream_t stream) { return RopeTurns(params, stream); };
  };
  return made;
}

Case RopeAppendCase(const BenchShape& shape, int32_t rows) {
  Case made{.kernel = "RopeAppend", .variant = Rows(rows)};
  const auto widths = static_cast<double>(shape.q_width() + shape.kv_width());
  // q and k in and out, v in, both to pages of bf16.
  made.bytes = rows * (8.0 * widths + 8.0 * static_cast<double>(shape.kv_width()));
  made.turn_bytes = rows * 4.0 * widths;
  made.prepare = [=](CaseMemory& memory, int turns) -> Launcher {
    std::vector<int32_t> positions(static_cast<size_t>(rows));
    std::iota(positions.begin(), positions.end(), 0);
    std::vector<int32_t> blocks;
    for (const int32_t position : positions) blocks.push_back(position / kPageTokens);
    RopeAppendParams params;
    params.turns = memory.Floats(rows * shape.head_size);
    params.positions = memory.Upload(positions);
    params.row_blocks = memory.Upload(blocks);
    params.rows = rows;
    params.query_heads = shape.query_heads;
    params.q = memory.Floats(turns * rows * shape.q_width());
    params.k = memory.Floats(turns * rows * shape.kv_width());
    params.v = memory.Floats(turns * rows * shape.kv_width());
    params.pages = {nullptr, DType::kBF16, blocks.back() + 1, shape.kv_heads, shape.head_size};
    params.pages.data = memory.Bf16(params.pages.PageOffset(1, 0, 0));
    const int64_t q_stride = rows * shape.q_width();
    const int64_t kv_stride = rows * shape.kv_width();
    return [=](int turn, cudaStream_t stream) {
      RopeAppendParams of_turn = params;
      of_turn.q += turn * q_stride;
      of_turn.k += turn * kv_stride;
      of_turn.v += turn * kv_stride;
      return RopeAppend(of_turn, stream);
    };
  };
  return made;
}

/// silu(x) · 1 of large x is x: the kernel works in place, and its input stays what it was.
Case SiluMulCase(const BenchShape& shape, int32_t rows) {
  Case made{.kernel = "SiluMul", .variant = Rows(rows)};
  made.bytes = 14.0 * rows * static_cast<double>(shape.intermediate);
  made.turn_bytes = 8.0 * rows * static_cast<double>(shape.intermediate);
  made.prepare = [=](CaseMemory& memory, int turns) -> Launcher {
    SiluMulParams params;
    params.gate = memory.Activations(turns * rows, shape.intermediate, 10.0f, 40.0f);
    params.up = memory.Floats(turns * rows * shape.intermediate, 0.0f, 1.0f);
    params.rows = rows;
    return [params](int turn, cudaStream_t stream) {
      SiluMulParams of_turn = params;
      of_turn.gate.values += turn * params.rows * params.gate.cols;
      of_turn.gate.rounded += turn * params.rows * params.gate.rounded_stride;
      of_turn.up += turn * params.rows * params.gate.cols;
      return SiluMul(of_turn, stream);
    };
  };
  return made;
}

Case GatherRowsCase(const BenchShape& shape, int32_t rows) {
  Case made{.kernel = "GatherRows", .variant = Rows(rows)};
  made.bytes = 10.0 * rows * static_cast<double>(shape.hidden);
  made.turn_bytes = 4.0 * rows * static_cast<double>(shape.hidden);
  made.prepare = [=](CaseMemory& memory, int turns) -> Launcher {
    GatherRowsParams params;
    params.x = memory.Floats(turns * rows * shape.hidden);
    params.rows = memory.Upload(Scattered(turns * rows, int64_t{turns} * rows, 0));
    params.count = rows;
    params.output = memory.Activations(rows, shape.hidden);
    return [params](int turn, cudaStream_t stream) {
      GatherRowsParams of_turn = params;
      of_turn.rows += turn * params.count;
      return GatherRows(of_turn, stream);
    };
  };
  return made;
}

Case RoundRowsCase(const BenchShape& shape, int32_t rows) {
  Case made{.kernel = "RoundRows", .variant = Rows(rows)};
  made.bytes = 6.0 * rows * static_cast<double>(shape.hidden);
  made.turn_bytes = made.bytes;
  made.prepare = [=](CaseMemory& memory, int turns) -> Launcher {
    const Matrix x = memory.Activations(turns * rows, shape.hidden);
    return [x, rows](int turn, cudaStream_t stream) {
      Matrix of_turn = x;
      of_turn.values += turn * rows * x.cols;
      of_turn.rounded += turn * rows * x.rounded_stride;
      return RoundRows({of_turn, rows}, stream);
    };
  };
  return made;
}

/// Blocks of 16 tokens of 32 layers, each to a place of its own.
Case CopyBlocksCase(const BenchShape& shape, int32_t count) {
  constexpr int32_t kLayers = 32;
  constexpr int64_t kVectorBytes = 16;
  const int64_t block_bytes = 2 * kPageTokens * shape.kv_width() * 2;
  Case made{.kernel = "CopyBlocks", .variant = "blocks=" + std::to_string(count)};
  made.bytes = 2.0 * kLayers * count * static_cast<double>(block_bytes);
  made.turn_bytes = made.bytes;
  made.prepare = [=](CaseMemory& memory, int turns) -> Launcher {
    std::vector<BlockCopy> copies;
    for (int32_t i = 0; i < turns * count; ++i) copies.push_back({2 * i, 2 * i + 1});
    CopyBlocksParams params;
    params.block_vectors = block_bytes / kVectorBytes;
    params.layer_vectors = params.block_vectors * 2 * turns * count;
    params.layers = kLayers;
    params.cache = reinterpret_cast<uint4*>(memory.Bf16(kLayers * params.layer_vectors * 8));
    params.copies = memory.Upload(copies);
    params.count = count;
    return [params](int turn, cudaStream_t stream) {
      CopyBlocksParams of_turn = params;
      of_turn.copies += turn * params.count;
      return CopyBlocks(of_turn, stream);
    };
  };
  return made;
}

Case LoraCase(const BenchShape& shape, int32_t rows) {
  Case made{.kernel = "AddLora", .variant = "q rank=16 " + Rows(rows)};
  const auto inputs = static_cast<double>(shape.hidden);
  const auto outputs = static_cast<double>(shape.q_width());
  made.turn_bytes = 2.0 * kLoraRank * (inputs + outputs);
  made.bytes = made.turn_bytes + rows * (4.0 * inputs + 8.0 * outputs);
  made.flop = 2.0 * rows * kLoraRank * (inputs + outputs);
  made.prepare = [=](CaseMemory& memory, int turns) -> Launcher {
    std::vector<DeviceLoraTerm> terms;
    float* output = memory.Floats(rows * shape.q_width());
    float* reduced = memory.Scratch<float>(rows * kLoraRank);
    for (int turn = 0; turn < turns; ++turn) {
      DeviceLoraTerm term;
      term.a = memory.Weight(DType::kBF16, kLoraRank, shape.hidden);
      term.b_transposed = memory.Weight(DType::kBF16, kLoraRank, shape.q_width());
      term.row_count = rows;
      term.output = output;
      term.reduced = reduced;
      terms.push_back(term);
    }
    LoraParams params;
    params.x = memory.Floats(rows * shape.hidden);
    params.terms = memory.Upload(terms);
    params.term_count = 1;
    params.max_rows = rows;
    params.max_rank = kLoraRank;
    params.max_outputs = shape.q_width();
    return [params](int turn, cudaStream_t stream) {
      LoraParams of_turn = params;
      of_turn.terms += turn;
      return AddLora(of_turn, stream);
    };
  };
  return made;
}

}  // namespace

void AddRowCases(const BenchShape& shape, std::vector<Case>& cases) {
  for (const auto& make : {EmbedCase, RopeTurnsCase, RopeAppendCase, SiluMulCase, GatherRowsCase,
                           RoundRowsCase, LoraCase}) {
    for (const int32_t rows : shape.steps) cases.push_back(make(shape, rows));
  }
  for (const int32_t count : {1, 64}) cases.push_back(CopyBlocksCase(shape, count));
}

}  // namespace llama_steer::cuda::bench
