// Gates and probes in the fused kernel, against float64.
#include <cmath>
#include <limits>

#include "kernels/support.h"

namespace llama_steer {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

constexpr int32_t kStride = 2;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

double DotExactly(std::span<const float> a, std::span<const float> b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i)
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

/// Σ |a·b|: what the error of a float32 dot product is measured by.
double DotOfMagnitudes(std::span<const float> a, std::span<const float> b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += std::fabs(static_cast<double>(a[i]) * static_cast<double>(b[i]));
  }
  return sum;
}

/// Rows through the fused kernel after the MLP of one block, without a delta that changes them.
struct GateStep {
  Backend& backend;
  int64_t d;
  std::vector<float> residual;
  std::vector<SteerGate> gates = {};
  std::vector<SteerOp> ops = {};
  std::vector<ProbeOp> probes = {};
  Sublayer sublayer = Sublayer::kMlp;
  std::vector<int32_t> positions = {};
  std::vector<int32_t> slots = {};  // of steering and probes

  // results
  std::vector<float> after = {};
  std::vector<SteerProof> proof = {};
  std::vector<float> scores = {};

  void Run() {
    const auto rows = static_cast<size_t>(static_cast<int64_t>(residual.size()) / d);
    const std::vector<float> ones(static_cast<size_t>(d), 1.0f);
    const StoredTensor weight = Load(backend, ones, d, DType::kF32);
    if (positions.empty()) {
      for (size_t t = 0; t < rows; ++t) positions.push_back(static_cast<int32_t>(t));
    }
    if (slots.empty()) slots.assign(rows, 1);
    proof.assign(rows * kStride, {});
    scores.assign(rows * kStride, std::nanf(""));
    const auto all = [](const auto& items) {
      return std::vector<SteerOpRange>{{0, 0}, {0, static_cast<int32_t>(items.size())}};
    };
    const std::vector<SteerOpRange> op_ranges = all(ops);
    const std::vector<SteerOpRange> gate_ranges = all(gates);
    const std::vector<SteerOpRange> probe_ranges = all(probes);
    const SteerTables steering{slots, op_ranges, 2, ops, proof.data(), kStride, gates, gate_ranges};
    const ProbeTables probing{slots, probe_ranges, 2, probes, scores.data(), kStride};
    Activations delta = Upload(backend, std::vector<float>(residual.size(), 0.0f), d);
    ResidualSteerNorm args;
    args.sublayer = sublayer;
    args.residual = Upload(backend, residual, d);
    args.delta = &delta;
    args.norm_weight = weight.weight.get();
    args.normed = Poisoned(backend, static_cast<int64_t>(rows), d);
    args.steering = &steering;
    args.probes = &probing;
    StepTables step;
    step.positions = positions;
    step.token_ids = positions;
    ASSERT_TRUE(backend.ApplyResidualSteerNorm(args, step).ok());
    ASSERT_TRUE(backend.Sync().ok());
    after = Downloaded(backend, args.residual, static_cast<int64_t>(rows));
  }
  std::span<const float> Row(const std::vector<float>& x, size_t t) const {
    return std::span(x).subspan(t * static_cast<size_t>(d), static_cast<size_t>(d));
  }
};

SteerGate Gate(int32_t vector_row, GateMetric metric, GateComparator comparator, float threshold) {
  SteerGate gate;
  gate.metric = metric;
  gate.comparator = comparator;
  gate.vector_row = vector_row;
  gate.threshold = threshold;
  gate.position_end = 1 << 30;
  return gate;
}

SteerOp Add(int32_t vector_row, bool gated, int32_t steering_index = 0) {
  SteerOp op;
  op.gated = gated;
  op.vector_row = vector_row;
  op.steering_index = steering_index;
  op.position_end = 1 << 30;
  return op;
}

using GateProbeTest = KernelTest;
INSTANTIATE_FOR_EVERY_TARGET(GateProbeTest);

TEST_P(GateProbeTest, ScoresFollowTheirFormulaForEveryWidth) {
  const auto backend = Make(2);
  for (const int64_t d : {1, 5, 16, 33, 64, 257, 4097}) {
    const auto width = static_cast<size_t>(d);
    const auto vector = RandomFloats(width, 1);
    const int32_t row = PutVector(*backend, vector);
    for (const GateMetric metric : {GateMetric::kDot, GateMetric::kCosine}) {
      GateStep run{*backend, d, RandomFloats(3 * width, 2, 4.0f)};
      run.gates = {Gate(row, metric, GateComparator::kAbove, 0.0f)};
      run.probes = {{.probe_index = 1, .vector_row = row, .position_end = 100}};
      run.Run();
      for (size_t t = 0; t < 3; ++t) {
        const auto h = run.Row(run.residual, t);
        const double dot = DotExactly(h, vector);
        const double bound = 1e-6 * DotOfMagnitudes(h, vector);
        const double lengths = std::sqrt(DotExactly(h, h) * DotExactly(vector, vector));
        const SteerProof& proof = run.proof[t * kStride];
        const auto score = static_cast<double>(proof.gate_score);
        if (metric == GateMetric::kDot) {
          EXPECT_NEAR(score, dot, bound) << d;
        } else {
          EXPECT_NEAR(score, dot / lengths, bound / lengths + 1e-6) << d;
        }
        EXPECT_EQ(proof.gate, score > 0.0 ? GateState::kOpen : GateState::kClosed);
        EXPECT_NEAR(static_cast<double>(run.scores[t * kStride + 1]), dot, bound);
        EXPECT_TRUE(std::isnan(run.scores[t * kStride]));  // nothing else is written
      }
    }
    backend->DropVectorRow(row);
  }
}

TEST_P(GateProbeTest, AGateOpensStrictlyBeyondItsThreshold) {
  const auto backend = Make(1);
  const int32_t row = PutVector(*backend, {1.0f, 0.0f, 0.0f, 0.0f});
  const std::vector<float> residual = {2.0f, 9.0f, 9.0f, 9.0f};
  const float above = std::nextafter(2.0f, 3.0f);
  const float below = std::nextafter(2.0f, 1.0f);
  const auto state = [&](GateComparator comparator, float threshold) {
    GateStep run{*backend, 4, residual};
    run.gates = {Gate(row, GateMetric::kDot, comparator, threshold)};
    run.Run();
    return run.proof[0].gate;
  };
  EXPECT_EQ(state(GateComparator::kAbove, below), GateState::kOpen);
  EXPECT_EQ(state(GateComparator::kAbove, 2.0f), GateState::kClosed);
  EXPECT_EQ(state(GateComparator::kAbove, above), GateState::kClosed);
  EXPECT_EQ(state(GateComparator::kBelow, above), GateState::kOpen);
  EXPECT_EQ(state(GateComparator::kBelow, 2.0f), GateState::kClosed);
  EXPECT_EQ(state(GateComparator::kBelow, below), GateState::kClosed);
}

TEST_P(GateProbeTest, AClosedGateLeavesTheBitsOfItsRow) {
  const auto backend = Make(2);
  constexpr int64_t kD = 70;
  const int32_t gate_row = PutVector(*backend, RandomFloats(kD, 3));
  const int32_t vector = PutVector(*backend, RandomFloats(kD, 4));
  GateStep run{*backend, kD, RandomFloats(40 * kD, 5)};
  run.gates = {Gate(gate_row, GateMetric::kCosine, GateComparator::kAbove, 0.05f)};
  run.ops = {Add(vector, true)};
  run.Run();
  int32_t open = 0;
  for (size_t t = 0; t < 40; ++t) {
    const bool fired = run.proof[t * kStride].gate == GateState::kOpen;
    open += fired ? 1 : 0;
    EXPECT_EQ(SameBits(run.Row(run.after, t), run.Row(run.residual, t)), !fired);
    EXPECT_EQ(run.proof[t * kStride].layers_acted, fired ? 1u : 0u);
    EXPECT_EQ(run.proof[t * kStride].delta_ratio_sum > 0.0f, fired);
  }
  EXPECT_GT(open, 0);
  EXPECT_LT(open, 40);
}

TEST_P(GateProbeTest, AnOpenGateIsNoGate) {
  const auto backend = Make(1);
  const int32_t vector = PutVector(*backend, RandomFloats(33, 6));
  GateStep ungated{*backend, 33, RandomFloats(5 * 33, 7)};
  ungated.ops = {Add(vector, false)};
  ungated.Run();
  GateStep gated{*backend, 33, ungated.residual};
  gated.gates = {Gate(vector, GateMetric::kDot, GateComparator::kAbove, -kInfinity)};
  gated.ops = {Add(vector, true)};
  gated.Run();
  EXPECT_TRUE(SameBits(gated.after, ungated.after));
  for (size_t t = 0; t < 5; ++t) {
    EXPECT_EQ(gated.proof[t * kStride].delta_ratio_sum, ungated.proof[t * kStride].delta_ratio_sum);
  }
}

TEST_P(GateProbeTest, GatesReadTheRowBeforeAnySteeringOfTheBlockAndProbesAfterIt) {
  const auto backend = Make(1);
  const auto values = RandomFloats(48, 8);
  const int32_t vector = PutVector(*backend, values);
  GateStep run{*backend, 48, RandomFloats(48, 9)};
  SteerGate gate = Gate(vector, GateMetric::kDot, GateComparator::kAbove, -1e30f);
  gate.steering_index = 1;
  run.gates = {gate};
  run.ops = {Add(vector, false, 0), Add(vector, true, 1)};
  run.probes = {{.vector_row = vector, .position_end = 100}};
  run.Run();
  const double before = DotExactly(run.residual, values);
  EXPECT_NEAR(static_cast<double>(run.proof[1].gate_score), before, 1e-4);
  EXPECT_NEAR(static_cast<double>(run.scores[0]), before + 2.0 * DotExactly(values, values), 1e-3);
  EXPECT_EQ(run.proof[1].layers_acted, 1u);
  EXPECT_EQ(run.proof[0].gate, GateState::kNotEvaluated);
}

TEST_P(GateProbeTest, AnOperationWithoutItsGateDoesNotAct) {
  const auto backend = Make(1);
  const int32_t vector = PutVector(*backend, RandomFloats(16, 10));
  GateStep run{*backend, 16, RandomFloats(16, 11)};
  run.ops = {Add(vector, true)};
  run.Run();
  EXPECT_TRUE(SameBits(run.after, run.residual));
  EXPECT_EQ(run.proof[0].layers_acted, 0u);
  EXPECT_EQ(run.proof[0].gate, GateState::kNotEvaluated);
}

TEST_P(GateProbeTest, OnlyRowsOfTheSlotAndTheRangeAreRead) {
  const auto backend = Make(1);
  const int32_t vector = PutVector(*backend, RandomFloats(16, 12));
  GateStep run{*backend, 16, RandomFloats(6 * 16, 13)};
  run.slots = {1, 1, 0, 1, 1, 1};
  run.gates = {Gate(vector, GateMetric::kDot, GateComparator::kAbove, 0.0f)};
  run.gates[0].position_begin = 1;
  run.gates[0].position_end = 4;
  run.probes = {{.vector_row = vector, .position_begin = 2, .position_end = 5}};
  run.Run();
  for (size_t t = 0; t < 6; ++t) {
    EXPECT_EQ(run.proof[t * kStride].gate != GateState::kNotEvaluated, t == 1 || t == 3) << t;
    EXPECT_EQ(!std::isnan(run.scores[t * kStride]), t == 3 || t == 4) << t;
  }
}

TEST_P(GateProbeTest, NothingIsReadAfterAttention) {
  const auto backend = Make(1);
  const int32_t vector = PutVector(*backend, RandomFloats(16, 14));
  GateStep run{*backend, 16, RandomFloats(16, 15)};
  run.gates = {Gate(vector, GateMetric::kDot, GateComparator::kAbove, 0.0f)};
  run.probes = {{.vector_row = vector, .position_end = 100}};
  run.sublayer = Sublayer::kAttention;
  run.Run();
  EXPECT_EQ(run.proof[0].gate, GateState::kNotEvaluated);
  EXPECT_TRUE(std::isnan(run.scores[0]));
}

TEST_P(GateProbeTest, ScoresThatAreNotFiniteAreReportedAsTheyAre) {
  const auto backend = Make(1);
  const int32_t ones = PutVector(*backend, std::vector<float>(16, 1.0f));
  for (const float bad : {std::nanf(""), kInfinity, 3e38f}) {
    GateStep run{*backend, 16, std::vector<float>(16, bad)};
    run.gates = {Gate(ones, GateMetric::kDot, GateComparator::kAbove, 0.0f)};
    run.probes = {{.vector_row = ones, .position_end = 100}};
    run.Run();
    EXPECT_FALSE(std::isfinite(run.proof[0].gate_score)) << bad;
    EXPECT_FALSE(std::isfinite(run.scores[0])) << bad;
  }
  GateStep zero{*backend, 16, std::vector<float>(16, 0.0f)};
  zero.gates = {Gate(ones, GateMetric::kCosine, GateComparator::kAbove, 0.0f)};
  zero.Run();
  EXPECT_FALSE(std::isfinite(zero.proof[0].gate_score));
}

TEST_P(GateProbeTest, ARowGetsTheSameScoresAloneAndInABatch) {
  constexpr int64_t kD = 150;
  constexpr size_t kRows = 19;
  const auto residual = RandomFloats(kRows * kD, 16);
  const auto values = RandomFloats(kD, 17);
  for (const int32_t threads : {1, 3}) {
    const auto backend = Make(threads);
    const int32_t vector = PutVector(*backend, values);
    const auto run = [&](std::vector<float> rows) {
      GateStep step{*backend, kD, std::move(rows)};
      step.gates = {Gate(vector, GateMetric::kCosine, GateComparator::kAbove, 0.0f)};
      step.ops = {Add(vector, true)};
      step.probes = {{.vector_row = vector, .position_end = 100}};
      step.Run();
      return step;
    };
    const GateStep batch = run(residual);
    for (size_t t = 0; t < kRows; ++t) {
      const auto begin = residual.begin() + static_cast<std::ptrdiff_t>(t * kD);
      const GateStep alone = run({begin, begin + kD});
      EXPECT_EQ(alone.proof[0].gate_score, batch.proof[t * kStride].gate_score);
      EXPECT_EQ(alone.scores[0], batch.scores[t * kStride]);
      EXPECT_TRUE(SameBits(alone.after, batch.Row(batch.after, t)));
    }
  }
}

}  // namespace
}  // namespace llama_steer
