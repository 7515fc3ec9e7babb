// What the kernels are measured on: one block of a model, and numbers of rows and tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llama_steer::cuda::bench {

/// Queries after a context; of one sequence.
struct PrefillSpan {
  int32_t rows = 0;
  int32_t context = 0;
};
/// One query each of so many sequences.
struct DecodeBatch {
  int32_t streams = 0;
  int32_t context = 0;  // tokens, the query's own included
};

struct BenchShape {
  std::string name;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int32_t query_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_size = 0;
  int64_t vocabulary = 0;
  int64_t copied_bytes = 0;    // to measure the bandwidth
  int32_t mma_rounds = 0;      // to measure the tensor cores
  std::vector<int32_t> rows;   // of projections
  std::vector<int32_t> steps;  // rows of everything else
  std::vector<PrefillSpan> prefill;
  std::vector<DecodeBatch> decode;

  int64_t q_width() const { return int64_t{query_heads} * head_size; }
  int64_t kv_width() const { return int64_t{kv_heads} * head_size; }
};

inline constexpr const char* kBenchShapeNames = "llama-3.1-8b, tiny";

/// "llama-3.1-8b", or "tiny": to see that everything runs, on an emulator or under a checker.
inline std::optional<BenchShape> BenchShapeByName(std::string_view name) {
  if (name == "llama-3.1-8b") {
    return BenchShape{
        .name = "llama-3.1-8b",
        .hidden = 4096,
        .intermediate = 14336,
        .query_heads = 32,
        .kv_heads = 8,
        .head_size = 128,
        .vocabulary = 128256,
        .copied_bytes = int64_t{1} << 30,
        .mma_rounds = 4096,
        .rows = {1, 2, 4, 8, 16, 32, 64, 256, 2048},
        .steps = {1, 8, 64, 512, 2048},
        .prefill = {{512, 0}, {2048, 0}, {8192, 0}, {16384, 0}, {512, 7680}},
        .decode = {{1, 1024}, {1, 8192}, {1, 32768}, {8, 1024}, {8, 8192}, {64, 1024}, {64, 4096}},
    };
  }
  if (name == "tiny") {
    return BenchShape{
        .name = "tiny",
        .hidden = 128,
        .intermediate = 192,
        .query_heads = 4,
        .kv_heads = 2,
        .head_size = 32,
        .vocabulary = 320,
        .copied_bytes = int64_t{1} << 20,
        .mma_rounds = 2,
        .rows = {5, 16},
        .steps = {1, 3},
        .prefill = {{40, 0}, {20, 70}},
        .decode = {{1, 300}, {3, 33}},
    };
  }
  return std::nullopt;
}

}  // namespace llama_steer::cuda::bench
