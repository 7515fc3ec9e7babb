// One measurement: a kernel on one shape, and the memory that it works on.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cuda/case_memory.h"
#include "cuda/shape.h"

namespace llama_steer::cuda::bench {

/// Launches the kernel once, on the buffers of one turn.
using Launcher = std::function<cudaError_t(int turn, cudaStream_t stream)>;

struct Case {
  std::string kernel;       // name of the launch function
  std::string variant;      // what of, as in "qkv bf16 rows=1"
  double bytes = 0.0;       // that one launch cannot do without reading or writing
  double flop = 0.0;        // of one launch, a multiply-add counts twice; 0: not its measure
  double turn_bytes = 0.0;  // of what alternates from launch to launch; 0: nothing does
  /// Allocates for `turns` turns. Errors are in the memory.
  std::function<Launcher(CaseMemory& memory, int turns)> prepare{};
};

void AddLinearCases(const BenchShape& shape, std::vector<Case>& cases);
void AddAttentionCases(const BenchShape& shape, std::vector<Case>& cases);
void AddNormCases(const BenchShape& shape, std::vector<Case>& cases);
void AddRowCases(const BenchShape& shape, std::vector<Case>& cases);
void AddSampleCases(const BenchShape& shape, std::vector<Case>& cases);

/// Every kernel on every shape.
inline std::vector<Case> AllCases(const BenchShape& shape) {
  std::vector<Case> cases;
  AddLinearCases(shape, cases);
  AddAttentionCases(shape, cases);
  AddNormCases(shape, cases);
  AddRowCases(shape, cases);
  AddSampleCases(shape, cases);
  return cases;
}

}  // namespace llama_steer::cuda::bench
