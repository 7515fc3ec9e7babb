#include <optional>

#include "kernels/support.h"

namespace llama_steer {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

constexpr float kEpsilon = 1e-5f;

std::vector<double> ToDouble(std::span<const float> values) {
  return {values.begin(), values.end()};
}

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
double Norm(const std::vector<double>& a) { return std::sqrt(Dot(a, a)); }

/// One operation by the formulas of docs/steering.md; returns ‖Δh‖ / ‖h‖.
double SteerExactly(const SteerOp& op, const std::vector<double>& v, std::vector<double>& h) {
  const std::vector<double> before = h;
  const double norm = Norm(v);
  const double c = static_cast<double>(op.coefficient);
  const double component = norm > 0.0 ? Dot(h, v) / norm : 0.0;
  const double low = static_cast<double>(op.clamp_min);
  const double high = static_cast<double>(op.clamp_max);
  double along = 0.0;  // of v̂
  switch (op.kind) {
    case SteerKind::kAdd:
      along = c * norm;
      break;
    case SteerKind::kProjectOut:
      along = -c * component;
      break;
    case SteerKind::kClamp:
      along = c * (std::min(std::max(component, low), high) - component);
      break;
    case SteerKind::kScaleComponent:
      along = (c - 1.0) * component;
      break;
  }
  for (size_t i = 0; i < h.size(); ++i) h[i] += norm > 0.0 ? along * v[i] / norm : 0.0;
  if (op.preserve_norm && Norm(h) > 0.0) {
    const double factor = Norm(before) / Norm(h);
    for (double& value : h) value *= factor;
  }
  std::vector<double> change = h;
  for (size_t i = 0; i < h.size(); ++i) change[i] -= before[i];
  return Norm(before) > 0.0 ? Norm(change) / Norm(before) : 0.0;
}

std::vector<double> NormaliseExactly(const std::vector<double>& h, std::span<const float> weight) {
  const double inverse =
      1.0 / std::sqrt(Dot(h, h) / static_cast<double>(h.size()) + static_cast<double>(kEpsilon));
  std::vector<double> out = h;
  for (size_t i = 0; i < h.size(); ++i) out[i] *= inverse * static_cast<double>(weight[i]);
  return out;
}

SteerOp Op(SteerKind kind, float coefficient, int32_t vector_row, bool preserve_norm = false) {
  SteerOp op;
  op.kind = kind;
  op.coefficient = coefficient;
  op.vector_row = vector_row;
  op.preserve_norm = preserve_norm;
  op.clamp_min = -0.5f;
  op.clamp_max = 0.25f;
  op.position_begin = 0;
  op.position_end = 1 << 30;
  return op;
}

/// One step of `rows` rows of width `d` through the fused kernel, with everything optional.
struct NormStep {
  Backend& backend;
  int64_t d;
  std::vector<float> residual;
  std::optional<std::vector<float>> delta;
  Sublayer sublayer = Sublayer::kMlp;
  int32_t block = 0;
  bool is_last = false;
  std::vector<int32_t> positions = {};
  std::vector<int32_t> row_slot = {};
  std::vector<SteerOp> ops = {};
  const CaptureTables* capture = nullptr;

  // results
  std::vector<float> residual_after = {};
  std::vector<float> normed = {};
  std::vector<SteerProof> proof = {};
  std::vector<float> norm_weight = {};

  void Run() {
    const auto rows = static_cast<int64_t>(residual.size()) / d;
    norm_weight = RandomBf16Floats(static_cast<size_t>(d), 77);
    const StoredTensor weight = Load(backend, norm_weight, d, DType::kBF16);
    if (positions.empty()) positions.assign(static_cast<size_t>(rows), 3);
    const Activations h = Upload(backend, residual, d);
    Activations added = Upload(backend, delta.value_or(std::vector<float>()), d);
    ResidualSteerNorm args;
    args.block = block;
    args.sublayer = sublayer;
    args.is_last = is_last;
    args.residual = h;
    args.delta = delta ? &added : nullptr;
    args.norm_weight = weight.weight.get();
    args.epsilon = kEpsilon;
    args.normed = Poisoned(backend, rows, d);
    args.capture = capture;
    constexpr int32_t kStride = 4;
    proof.assign(static_cast<size_t>(rows) * kStride, {});
    const std::vector<SteerOpRange> ranges = {
        {0, 0}, {0, static_cast<int32_t>(ops.size())}};  // one block, two slots
    const SteerTables steering{row_slot, ranges, 2, ops, proof.data(), kStride};
    if (!row_slot.empty()) args.steering = &steering;
    StepTables step;
    step.positions = positions;
    step.token_ids = positions;
    ASSERT_TRUE(backend.ApplyResidualSteerNorm(args, step).ok());
    ASSERT_TRUE(backend.Sync().ok());
    residual_after = Downloaded(backend, h, rows);
    normed = Downloaded(backend, args.normed, rows);
  }
};

using NormTest = KernelTest;
INSTANTIATE_FOR_EVERY_TARGET(NormTest);

TEST_P(NormTest, AddsTheDeltaAndNormalisesForEveryWidth) {
  const auto backend = Make(2);
  for (const int64_t d : {1, 7, 16, 33, 64, 100, 576, 4097}) {
    const auto count = static_cast<size_t>(3 * d);
    NormStep run{*backend, d, RandomFloats(count, 1, 5.0f), RandomFloats(count, 2)};
    run.sublayer = Sublayer::kAttention;
    run.Run();
    for (int64_t row = 0; row < 3; ++row) {
      const auto first = static_cast<size_t>(row * d);
      const auto width = static_cast<size_t>(d);
      std::vector<double> h = ToDouble(std::span(run.residual).subspan(first, width));
      for (size_t i = 0; i < width; ++i) h[i] += static_cast<double>((*run.delta)[first + i]);
      EXPECT_LE(RelativeL2(std::span(run.residual_after).subspan(first, width), h), 1e-7);
      EXPECT_LE(RelativeL2(std::span(run.normed).subspan(first, width),
                           NormaliseExactly(h, run.norm_weight)),
                3e-7)
          << d;
    }
  }
}

TEST_P(NormTest, EachOperationFollowsItsFormula) {
  const auto backend = Make(2);
  for (const int64_t d : {5, 64, 257}) {
    const auto vector = RandomFloats(static_cast<size_t>(d), 3);
    const int32_t row = PutVector(*backend, vector);
    for (const SteerKind kind :
         {SteerKind::kAdd, SteerKind::kProjectOut, SteerKind::kClamp, SteerKind::kScaleComponent}) {
      for (const bool preserve_norm : {false, true}) {
        for (const float coefficient : {1.0f, -0.7f, 4.0f}) {
          NormStep run{*backend, d, RandomFloats(static_cast<size_t>(2 * d), 4),
                       RandomFloats(static_cast<size_t>(2 * d), 5)};
          run.row_slot = {1, 1};
          run.ops = {Op(kind, coefficient, row, preserve_norm)};
          run.Run();
          for (size_t t = 0; t < 2; ++t) {
            const auto width = static_cast<size_t>(d);
            std::vector<double> h = ToDouble(std::span(run.residual).subspan(t * width, width));
            for (size_t i = 0; i < width; ++i) {
              h[i] += static_cast<double>((*run.delta)[t * width + i]);
            }
            const double ratio = SteerExactly(run.ops[0], ToDouble(vector), h);
            const auto after = std::span(run.residual_after).subspan(t * width, width);
            EXPECT_LE(RelativeL2(after, h), 2e-6) << static_cast<int>(kind) << " d " << d;
            EXPECT_LE(RelativeL2(std::span(run.normed).subspan(t * width, width),
                                 NormaliseExactly(h, run.norm_weight)),
                      3e-6);
            EXPECT_NEAR(run.proof[t * 4].delta_ratio_sum, ratio, 2e-6 * (1.0 + ratio));
            EXPECT_EQ(run.proof[t * 4].layers_acted, 1u);
          }
        }
      }
    }
    backend->DropVectorRow(row);
  }
}

TEST_P(NormTest, SeveralOperationsComposeInTheirOrder) {
  const auto backend = Make(1);
  constexpr int64_t kD = 96;
  const auto a = RandomFloats(kD, 6);
  const auto b = RandomFloats(kD, 7, 3.0f);
  const int32_t row_a = PutVector(*backend, a);
  const int32_t row_b = PutVector(*backend, b);
  std::vector<SteerOp> ops = {Op(SteerKind::kAdd, 2.0f, row_a),
                              Op(SteerKind::kProjectOut, 1.0f, row_b),
                              Op(SteerKind::kClamp, 1.0f, row_a, true)};
  ops[1].steering_index = 1;
  for (const bool reversed : {false, true}) {
    if (reversed) std::swap(ops[0], ops[1]);
    NormStep run{*backend, kD, RandomFloats(kD, 8), std::vector<float>(kD, 0.0f)};
    run.row_slot = {1};
    run.ops = ops;
    run.Run();
    std::vector<double> h = ToDouble(run.residual);
    std::vector<double> ratios(4, 0.0);
    for (const SteerOp& op : ops) {
      const auto& vector = op.vector_row == row_a ? a : b;
      ratios[static_cast<size_t>(op.steering_index)] += SteerExactly(op, ToDouble(vector), h);
    }
    EXPECT_LE(RelativeL2(run.residual_after, h), 2e-6);
    for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(run.proof[i].delta_ratio_sum, ratios[i], 1e-5);
    EXPECT_EQ(run.proof[0].layers_acted, 2u);  // two operations of one steering
    EXPECT_EQ(run.proof[1].layers_acted, 1u);
  }
}

TEST_P(NormTest, RowsThatNothingActsOnKeepTheBitsOfAnUnsteeredStep) {
  const auto backend = Make(2);
  constexpr int64_t kD = 70;
  constexpr size_t kRows = 20;
  const int32_t vector = PutVector(*backend, RandomFloats(kD, 9));
  NormStep plain{*backend, kD, RandomFloats(kRows * kD, 10), RandomFloats(kRows * kD, 11)};
  plain.Run();

  NormStep steered = plain;
  steered.row_slot.assign(kRows, 0);
  steered.positions.clear();
  for (size_t t = 0; t < kRows; ++t) {
    steered.positions.push_back(static_cast<int32_t>(t));
    if (t % 2 == 1) steered.row_slot[t] = 1;
  }
  SteerOp acting = Op(SteerKind::kAdd, 1.0f, vector);
  acting.position_begin = 5;
  acting.position_end = 11;  // rows 5, 7 and 9
  SteerOp inert = Op(SteerKind::kAdd, 0.0f, vector, true);
  inert.inert = true;
  inert.steering_index = 1;
  steered.ops = {acting, inert};
  steered.Run();
  for (size_t t = 0; t < kRows; ++t) {
    const bool acts = t == 5 || t == 7 || t == 9;
    const auto same = [&](const std::vector<float>& x, const std::vector<float>& y) {
      return SameBits(std::span(x).subspan(t * kD, kD), std::span(y).subspan(t * kD, kD));
    };
    EXPECT_EQ(same(steered.residual_after, plain.residual_after), !acts) << t;
    EXPECT_EQ(same(steered.normed, plain.normed), !acts) << t;
    EXPECT_EQ(steered.proof[t * 4].layers_acted, acts ? 1u : 0u);
    EXPECT_EQ(steered.proof[t * 4].delta_ratio_sum > 0.0f, acts);
    // An inert operation is counted where it would have acted, and changes nothing.
    EXPECT_EQ(steered.proof[t * 4 + 1].layers_acted, t % 2 == 1 ? 1u : 0u);
    EXPECT_EQ(steered.proof[t * 4 + 1].delta_ratio_sum, 0.0f);
  }
}

TEST_P(NormTest, SteeringWaitsForTheMlp) {
  const auto backend = Make(1);
  const int32_t vector = PutVector(*backend, RandomFloats(32, 12));
  NormStep plain{*backend, 32, RandomFloats(32, 13), RandomFloats(32, 14)};
  plain.sublayer = Sublayer::kAttention;
  plain.Run();
  NormStep steered = plain;
  steered.row_slot = {1};
  steered.ops = {Op(SteerKind::kAdd, 1.0f, vector)};
  steered.Run();
  EXPECT_TRUE(SameBits(plain.residual_after, steered.residual_after));
  EXPECT_EQ(steered.proof[0].layers_acted, 0u);
}

TEST_P(NormTest, ARowGetsTheSameBitsAloneInABatchAndOnAnyNumberOfThreads) {
  constexpr int64_t kD = 150;
  constexpr size_t kRows = 19;
  const auto residual = RandomFloats(kRows * kD, 15);
  const auto delta = RandomFloats(kRows * kD, 16);
  const auto values = RandomFloats(kD, 17);
  std::vector<float> reference;
  for (const int32_t threads : {1, 2, 3}) {
    const auto backend = Make(threads);
    const int32_t vector = PutVector(*backend, values);
    NormStep batch{*backend, kD, residual, delta};
    batch.row_slot.assign(kRows, 1);
    batch.ops = {Op(SteerKind::kScaleComponent, 3.0f, vector, true)};
    batch.Run();
    if (reference.empty()) reference = batch.normed;
    EXPECT_TRUE(SameBits(batch.normed, reference));
    for (size_t t = 0; t < kRows; ++t) {
      const auto begin = static_cast<std::ptrdiff_t>(t * kD);
      NormStep alone{*backend,
                     kD,
                     {residual.begin() + begin, residual.begin() + begin + kD},
                     std::vector<float>(delta.begin() + begin, delta.begin() + begin + kD)};
      alone.row_slot = {1};
      alone.ops = batch.ops;
      alone.Run();
      EXPECT_TRUE(SameBits(alone.normed, std::span(reference).subspan(t * kD, kD)));
      EXPECT_EQ(alone.proof[0].delta_ratio_sum, batch.proof[t * 4].delta_ratio_sum);
    }
  }
}

TEST_P(NormTest, VectorsOfAnyLengthHaveADirection) {
  const auto backend = Make(1);
  const auto shape = RandomFloats(64, 18);
  for (const float scale : {1e-30f, 1e-12f, 1e12f, 1e30f}) {
    std::vector<float> values = shape;
    for (float& value : values) value *= scale;
    const int32_t vector = PutVector(*backend, values);
    NormStep run{*backend, 64, RandomFloats(64, 19), std::vector<float>(64, 0.0f)};
    run.row_slot = {1};
    run.ops = {Op(SteerKind::kProjectOut, 1.0f, vector)};
    run.Run();
    std::vector<double> h = ToDouble(run.residual);
    const double ratio = SteerExactly(run.ops[0], ToDouble(shape), h);
    EXPECT_LE(RelativeL2(run.residual_after, h), 2e-6) << scale;
    EXPECT_NEAR(run.proof[0].delta_ratio_sum, ratio, 1e-5) << scale;
    backend->DropVectorRow(vector);
  }
}

TEST_P(NormTest, ZeroRowsAndZeroVectorsDivideNothingByZero) {
  const auto backend = Make(1);
  const int32_t zero = PutVector(*backend, std::vector<float>(32, 0.0f));
  const int32_t one = PutVector(*backend, std::vector<float>(32, 1.0f));
  for (const SteerKind kind :
       {SteerKind::kAdd, SteerKind::kProjectOut, SteerKind::kClamp, SteerKind::kScaleComponent}) {
    for (const bool preserve_norm : {false, true}) {
      NormStep vector{*backend, 32, RandomFloats(32, 20), std::vector<float>(32, 0.0f)};
      vector.row_slot = {1};
      vector.ops = {Op(kind, 2.0f, zero, preserve_norm)};
      vector.Run();
      EXPECT_LE(RelativeL2(vector.residual_after, ToDouble(vector.residual)), 1e-6);
      EXPECT_LE(vector.proof[0].delta_ratio_sum, 1e-6f);

      NormStep row{*backend, 32, std::vector<float>(32, 0.0f), std::vector<float>(32, 0.0f)};
      row.row_slot = {1};
      row.ops = {Op(kind, 2.0f, one, preserve_norm)};
      row.Run();
      EXPECT_EQ(row.proof[0].delta_ratio_sum, 0.0f);
      for (const float value : row.normed) EXPECT_TRUE(std::isfinite(value));
    }
  }
}

TEST_P(NormTest, RowsOfVectorsAreReused) {
  const auto backend = Make(1);
  const int32_t first = PutVector(*backend, std::vector<float>(16, 1.0f));
  const int32_t second = PutVector(*backend, std::vector<float>(16, 2.0f));
  EXPECT_NE(first, second);
  backend->DropVectorRow(first);
  const auto values = RandomFloats(16, 21);
  EXPECT_EQ(PutVector(*backend, values), first);
  NormStep run{*backend, 16, std::vector<float>(16, 0.0f), std::vector<float>(16, 0.0f)};
  run.row_slot = {1};
  run.ops = {Op(SteerKind::kAdd, 1.0f, first)};
  run.Run();
  EXPECT_TRUE(SameBits(run.residual_after, values));
}

TEST_P(NormTest, NanStaysInItsRow) {
  const auto backend = Make(2);
  NormStep clean{*backend, 40, RandomFloats(12 * 40, 22), RandomFloats(12 * 40, 23)};
  clean.Run();
  NormStep broken = clean;
  broken.residual[4 * 40 + 39] = std::nanf("");
  broken.Run();
  for (size_t t = 0; t < 12; ++t) {
    const auto row = std::span(broken.normed).subspan(t * 40, 40);
    if (t == 4) {
      for (const float value : row) EXPECT_TRUE(std::isnan(value));
    } else {
      EXPECT_TRUE(SameBits(row, std::span(clean.normed).subspan(t * 40, 40)));
    }
  }
}

TEST_P(NormTest, CapturesEachPointWhereItStands) {
  const auto backend = Make(2);
  constexpr int64_t kD = 24;
  constexpr int32_t kBlock = 0;
  const int32_t vector = PutVector(*backend, RandomFloats(kD, 24));
  constexpr int32_t kSites = 2 * kCapturePointCount;
  // Slot 1 keeps every point of block 0 in order; slot 2 keeps the residual only.
  std::vector<int32_t> ordinals(3 * kSites, -1);
  for (int32_t i = 0; i < kCapturePointCount; ++i) ordinals[static_cast<size_t>(kSites + i)] = i;
  ordinals[2 * kSites + static_cast<size_t>(CaptureSite(CapturePoint::kResidual, kBlock))] = 0;
  const std::vector<int32_t> slot = {0, 1, 2};
  const std::vector<int32_t> base = {0, 0, kCapturePointCount};
  const auto residual = RandomFloats(3 * kD, 25);
  const auto delta = RandomFloats(3 * kD, 26);

  std::vector<float> staging((kCapturePointCount + 1) * kD, -1.0f);
  const CaptureTables capture{slot, base, ordinals, kSites, staging.data(), kCapturePointCount + 1};
  const auto captured = [&](CapturePoint point) {
    return std::span(staging).subspan(static_cast<size_t>(point) * kD, kD);
  };
  const auto row = [](const std::vector<float>& x, size_t t) {
    return std::span(x).subspan(t * kD, kD);
  };

  NormStep embedding{*backend, kD, residual, std::nullopt, Sublayer::kEmbedding};
  embedding.capture = &capture;
  embedding.Run();
  EXPECT_TRUE(SameBits(captured(CapturePoint::kEmbedding), row(residual, 1)));

  NormStep attention{*backend, kD, residual, delta, Sublayer::kAttention};
  attention.capture = &capture;
  attention.Run();
  EXPECT_TRUE(SameBits(captured(CapturePoint::kAttentionDelta), row(delta, 1)));

  NormStep unsteered{*backend, kD, residual, delta, Sublayer::kMlp};
  unsteered.Run();
  NormStep mlp = unsteered;
  mlp.capture = &capture;
  mlp.row_slot = {1, 1, 1};
  mlp.ops = {Op(SteerKind::kAdd, 1.0f, vector)};
  mlp.is_last = true;
  mlp.Run();
  EXPECT_TRUE(SameBits(captured(CapturePoint::kMlpDelta), row(delta, 1)));
  EXPECT_TRUE(
      SameBits(captured(CapturePoint::kResidualBeforeSteering), row(unsteered.residual_after, 1)));
  EXPECT_TRUE(SameBits(captured(CapturePoint::kResidual), row(mlp.residual_after, 1)));
  EXPECT_FALSE(
      SameBits(captured(CapturePoint::kResidual), captured(CapturePoint::kResidualBeforeSteering)));
  EXPECT_TRUE(SameBits(captured(CapturePoint::kFinalNorm), row(mlp.normed, 1)));
  EXPECT_TRUE(SameBits(std::span(staging).subspan(kCapturePointCount * kD, kD),
                       row(mlp.residual_after, 2)));
}

}  // namespace
}  // namespace llama_steer
