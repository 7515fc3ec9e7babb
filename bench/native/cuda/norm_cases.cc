// The fused kernel: plain, and with each thing that it can do on the way.
#include <string>
#include <vector>

#include "cuda/case.h"
#include "kernels/residual_steer_norm.h"

namespace llama_steer::cuda::bench {
namespace {

constexpr int32_t kEveryPosition = 1 << 30;
/// Scores of random rows lie below, so that a gate is evaluated and the steering then acts.
constexpr float kOpenThreshold = -1e30f;

struct Variant {
  const char* name = nullptr;
  bool tables = false;    // of steering are there
  bool steered = false;   // and act on every row
  bool distinct = false;  // with a vector of its own for each row, else one for all
  SteerKind kind = SteerKind::kAdd;
  bool preserve_norm = false;
  bool gated = false;
  bool probed = false;
  bool captured = false;
};
constexpr Variant kVariants[] = {
    {.name = "plain"},
    {.name = "tables, no row steered", .tables = true},
    {.name = "one vector", .tables = true, .steered = true},
    {.name = "vector of its own", .tables = true, .steered = true, .distinct = true},
    {.name = "project out, norm preserved",
     .tables = true,
     .steered = true,
     .kind = SteerKind::kProjectOut,
     .preserve_norm = true},
    {.name = "gated", .tables = true, .steered = true, .gated = true},
    {.name = "probed", .probed = true},
    {.name = "captured", .captured = true},
};

/// Bytes of one row: residual in and out, delta, both forms of the normed row.
double RowBytes(const BenchShape& shape, const Variant& variant) {
  double values = 4.0 + 4.0 + 4.0 + 4.0 + 2.0;
  if (variant.distinct) values += 4.0;
  if (variant.captured) values += 4.0;
  return values * static_cast<double>(shape.hidden);
}

/// A slot a vector: row t has slot 1 + t, or all rows have slot 1.
DeviceSteerTables SteerTablesOf(const BenchShape& shape, const Variant& variant, int32_t rows,
                                CaseMemory& memory) {
  const int32_t vectors = variant.distinct ? rows : 1;
  const float* values = memory.Floats(vectors * shape.hidden, 1e-3f);
  std::vector<int32_t> slot_of_row(static_cast<size_t>(rows), 0);
  for (int32_t row = 0; variant.steered && row < rows; ++row) {
    slot_of_row[static_cast<size_t>(row)] = variant.distinct ? 1 + row : 1;
  }
  std::vector<SteerOpRange> ranges = {{0, 0}};
  std::vector<DeviceSteerOp> ops;
  for (int32_t i = 0; i < vectors; ++i) {
    DeviceSteerOp op;
    op.kind = variant.kind;
    op.preserve_norm = variant.preserve_norm;
    op.gated = variant.gated;
    op.position_end = kEveryPosition;
    op.norm = 1.0f;
    op.values = values == nullptr ? nullptr : values + i * shape.hidden;
    op.direction = op.values;
    ranges.push_back({i, i + 1});
    ops.push_back(op);
  }
  DeviceSteerTables tables;
  tables.row_slot = memory.Upload(slot_of_row);
  tables.ranges = memory.Upload(ranges);
  tables.slots = 1 + vectors;
  tables.ops = memory.Upload(ops);
  tables.proof = memory.Scratch<SteerProof>(rows);
  tables.proof_stride = 1;
  if (variant.gated) {
    DeviceSteerGate gate;
    gate.threshold = kOpenThreshold;
    gate.position_end = kEveryPosition;
    gate.vector = memory.Floats(shape.hidden, 1e-3f);
    tables.gates = memory.Upload(std::vector<DeviceSteerGate>{gate});
    tables.gate_ranges = memory.Upload(std::vector<SteerOpRange>{{0, 0}, {0, 1}});
  }
  return tables;
}

DeviceProbeTables ProbeTablesOf(const BenchShape& shape, int32_t rows, CaseMemory& memory) {
  DeviceProbeOp op;
  op.position_end = kEveryPosition;
  op.values = memory.Floats(shape.hidden, 1e-3f);
  DeviceProbeTables tables;
  tables.row_slot = memory.Upload(std::vector<int32_t>(static_cast<size_t>(rows), 1));
  tables.ranges = memory.Upload(std::vector<SteerOpRange>{{0, 0}, {0, 1}});
  tables.slots = 2;
  tables.ops = memory.Upload(std::vector<DeviceProbeOp>{op});
  tables.scores = memory.Scratch<float>(rows);
  tables.score_stride = 1;
  return tables;
}

/// The residual stream after the block, of every row.
DeviceCaptureTables CaptureTablesOf(const BenchShape& shape, int32_t rows, CaseMemory& memory) {
  std::vector<int32_t> bases;
  for (int32_t row = 0; row < rows; ++row) bases.push_back(row);
  std::vector<int32_t> ordinals(2 * kCapturePointCount, -1);
  const int32_t site = CaptureSite(CapturePoint::kResidual, 0);
  ordinals[static_cast<size_t>(kCapturePointCount + site)] = 0;
  DeviceCaptureTables tables;
  tables.row_slot = memory.Upload(std::vector<int32_t>(static_cast<size_t>(rows), 1));
  tables.row_base = memory.Upload(bases);
  tables.site_ordinal = memory.Upload(ordinals);
  tables.sites = kCapturePointCount;
  tables.staging = memory.Scratch<float>(rows * shape.hidden);
  return tables;
}

Case NormCase(const BenchShape& shape, const Variant& variant, int32_t rows) {
  Case made;
  made.kernel = "ResidualSteerNormPass";
  made.variant = std::string(variant.name) + " rows=" + std::to_string(rows);
  made.bytes = rows * RowBytes(shape, variant);
  made.turn_bytes = 8.0 * rows * static_cast<double>(shape.hidden);
  made.prepare = [=](CaseMemory& memory, int turns) -> Launcher {
    ResidualSteerNormParams params;
    params.sublayer = Sublayer::kMlp;
    params.rows = rows;
    params.positions = memory.Upload(std::vector<int32_t>(static_cast<size_t>(rows), 1));
    params.residual = memory.Floats(turns * rows * shape.hidden);
    params.delta = memory.Floats(turns * rows * shape.hidden);
    params.norm_weight = memory.Weight(DType::kBF16, 1, shape.hidden);
    params.epsilon = 1e-5f;
    params.normed = memory.Activations(rows, shape.hidden);
    if (variant.tables) params.steering = SteerTablesOf(shape, variant, rows, memory);
    if (variant.probed) params.probes = ProbeTablesOf(shape, rows, memory);
    if (variant.captured) params.capture = CaptureTablesOf(shape, rows, memory);
    const int64_t stride = rows * shape.hidden;
    return [params, stride](int turn, cudaStream_t stream) {
      ResidualSteerNormParams of_turn = params;
      of_turn.residual += turn * stride;
      of_turn.delta += turn * stride;
      return ResidualSteerNormPass(of_turn, stream);
    };
  };
  return made;
}

}  // namespace

void AddNormCases(const BenchShape& shape, std::vector<Case>& cases) {
  for (const Variant& variant : kVariants) {
    for (const int32_t rows : shape.steps) cases.push_back(NormCase(shape, variant, rows));
  }
}

}  // namespace llama_steer::cuda::bench
