// Projections taken together with what follows them: the bits of the operations one by one,
// whatever the device makes of it.
#include <numeric>

#include "kernels/support.h"

namespace llama_steer {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

using FusedLinearTest = KernelTest;
INSTANTIATE_FOR_EVERY_TARGET(FusedLinearTest);

/// As checkpoints and --dtype give them; a device has a kernel for each.
struct Storage {
  DType dtype;
  WeightFormat format;
};
std::vector<Storage> Storages(const Backend& backend) {
  std::vector<Storage> all = {{DType::kBF16, WeightFormat::kAsStored},
                              {DType::kF32, WeightFormat::kInt8},
                              {DType::kF32, WeightFormat::kAsStored},
                              {DType::kF32, WeightFormat::kFp8}};
  if (!backend.HasWeightFormat(WeightFormat::kFp8)) all.pop_back();
  return all;
}

StoredTensor RandomWeight(Backend& backend, int64_t outputs, int64_t inputs, Storage storage,
                          uint32_t seed) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(inputs));
  const auto values = RandomFloats(static_cast<size_t>(outputs * inputs), seed, scale);
  return Load(backend, values, inputs, storage.dtype, storage.format);
}

/// An adapter of one projection for all rows but the first.
class Adapter {
 public:
  Adapter(Backend& backend, int64_t inputs, int64_t outputs, uint32_t seed) {
    constexpr int64_t kRank = 3;
    a_ = Store(RandomFloats(static_cast<size_t>(kRank * inputs), seed), inputs, DType::kF32);
    b_ = Store(RandomFloats(static_cast<size_t>(outputs * kRank), seed + 1), kRank, DType::kF32);
    weight_ = backend.LoadLora(a_.view, b_.view, 0.5f).value();
  }
  LoraTerm Term(int64_t rows, Activations output) const {
    return {weight_.get(), 1, static_cast<int32_t>(rows) - 1, output};
  }

 private:
  StoredTensor a_;
  StoredTensor b_;
  std::unique_ptr<LoraWeight> weight_;
};

/// Gate and up of an MLP.
struct Gates {
  Gates(Backend& backend, int64_t outputs, int64_t inputs, Storage storage, bool biased)
      : gate(RandomWeight(backend, outputs, inputs, storage, 1)),
        up(RandomWeight(backend, outputs, inputs, storage, 2)) {
    if (!biased) return;
    const auto values = RandomFloats(static_cast<size_t>(2 * outputs), 3);
    const auto half = values.begin() + outputs;
    gate_bias = Load(backend, {values.begin(), half}, outputs, DType::kBF16);
    up_bias = Load(backend, {half, values.end()}, outputs, DType::kBF16);
  }
  LinearTarget Gate(Activations output) const {
    return {gate.weight.get(), gate_bias.weight.get(), output};
  }
  LinearTarget Up(Activations output) const {
    return {up.weight.get(), up_bias.weight.get(), output};
  }

  StoredTensor gate;
  StoredTensor up;
  StoredTensor gate_bias;
  StoredTensor up_bias;
};

/// silu(gate(x)) * up(x) in one operation, or in those it is made of; and what a projection of it
/// gives, which reads the copy that tensor cores take.
std::vector<float> Gated(Backend& backend, const Gates& gates, const std::vector<float>& x,
                         bool fused, const Adapter* adapter = nullptr) {
  const int64_t outputs = gates.gate.view.rows;
  const int64_t rows = static_cast<int64_t>(x.size()) / gates.gate.view.cols;
  const Activations input = Upload(backend, x, gates.gate.view.cols);
  const LinearTarget targets[] = {gates.Gate(Poisoned(backend, rows, outputs)),
                                  gates.Up(Poisoned(backend, rows, outputs))};
  std::vector<LoraTerm> terms;
  if (adapter != nullptr) terms.push_back(adapter->Term(rows, targets[1].output));
  if (fused) {
    EXPECT_TRUE(backend.GatedLinear(input, rows, targets[0], targets[1], terms).ok());
  } else {
    EXPECT_TRUE(backend.Linear(input, rows, targets).ok());
    if (adapter != nullptr) {
      EXPECT_TRUE(backend.AddLora(input, terms).ok());
    }
    EXPECT_TRUE(backend.SiluMul(rows, targets[0].output, targets[1].output).ok());
  }
  const StoredTensor next = RandomWeight(backend, 5, outputs, {DType::kBF16, {}}, 4);
  const LinearTarget down[] = {{next.weight.get(), nullptr, Poisoned(backend, rows, 5)}};
  EXPECT_TRUE(backend.Linear(targets[0].output, rows, down).ok());
  std::vector<float> result = Downloaded(backend, targets[0].output, rows);
  const std::vector<float> projected = Downloaded(backend, down[0].output, rows);
  result.insert(result.end(), projected.begin(), projected.end());
  EXPECT_TRUE(backend.Sync().ok());
  return result;
}

TEST_P(FusedLinearTest, GateAndUpGiveTheBitsOfTheirOperations) {
  const auto backend = Make(2);
  struct Shape {
    int64_t outputs;
    int64_t inputs;
  };
  // Less than a block, several blocks and slices, and more slices than a block has warps.
  for (const Shape shape : {Shape{5, 17}, Shape{48, 640}, Shape{19, 1539}, Shape{3, 5130}}) {
    for (const Storage storage : Storages(*backend)) {
      if (shape.inputs > 5000 && storage.dtype != DType::kBF16) continue;  // slow
      const Gates gates(*backend, shape.outputs, shape.inputs, storage, shape.outputs % 2 == 1);
      const Adapter adapter(*backend, shape.inputs, shape.outputs, 5);
      for (const int64_t rows : {1, 8, 9, 17}) {
        const auto x = RandomFloats(static_cast<size_t>(rows * shape.inputs), 6);
        for (const Adapter* adapts : {static_cast<const Adapter*>(nullptr), &adapter}) {
          if (adapts != nullptr && (rows != 9 || shape.inputs > 5000)) continue;
          EXPECT_TRUE(SameBits(Gated(*backend, gates, x, true, adapts),
                               Gated(*backend, gates, x, false, adapts)))
              << shape.outputs << "x" << shape.inputs << " rows " << rows;
        }
      }
    }
  }
}

TEST_P(FusedLinearTest, GateAndUpAreCloseToFloat64) {
  const auto backend = Make(2);
  constexpr int64_t kOutputs = 33;
  constexpr int64_t kInputs = 700;
  const Gates gates(*backend, kOutputs, kInputs, {DType::kBF16, WeightFormat::kAsStored}, true);
  for (const size_t rows : {4u, 12u}) {
    const auto x = RandomBf16Floats(rows * kInputs, 7);
    const auto project = [&](const StoredTensor& weight, const StoredTensor& bias, size_t row,
                             size_t n) {
      double sum = static_cast<double>(bias.exact[n]);
      for (size_t k = 0; k < kInputs; ++k) {
        sum += static_cast<double>(x[row * kInputs + k]) *
               static_cast<double>(weight.exact[n * kInputs + k]);
      }
      return sum;
    };
    std::vector<double> exact;
    for (size_t row = 0; row < rows; ++row) {
      for (size_t n = 0; n < kOutputs; ++n) {
        const double gate = project(gates.gate, gates.gate_bias, row, n);
        exact.push_back(gate / (1.0 + std::exp(-gate)) * project(gates.up, gates.up_bias, row, n));
      }
    }
    auto got = Gated(*backend, gates, x, true);
    got.resize(exact.size());
    EXPECT_LE(RelativeL2(got, exact), 2e-6);
  }
}

TEST_P(FusedLinearTest, ARowOfGateAndUpHasTheSameBitsInEveryBatchAndEveryTime) {
  const auto backend = Make(2);
  constexpr int64_t kOutputs = 40;
  constexpr int64_t kInputs = 1100;
  constexpr size_t kRows = 20;
  const Gates gates(*backend, kOutputs, kInputs, {DType::kBF16, WeightFormat::kAsStored}, false);
  const auto x = RandomFloats(kRows * kInputs, 8);
  const auto row_of = [&](size_t row) {
    const auto first = x.begin() + static_cast<std::ptrdiff_t>(row * kInputs);
    return std::vector<float>(first, first + kInputs);
  };
  std::vector<std::vector<float>> alone;
  for (size_t row = 0; row < kRows; ++row) {
    alone.push_back(Gated(*backend, gates, row_of(row), true));
    alone.back().resize(kOutputs);
  }
  for (const size_t rows : {2u, 7u, 8u, 9u, 15u, 16u, 17u, 20u}) {
    // The batch in another order than its rows were taken in.
    std::vector<float> batch;
    for (size_t i = 0; i < rows; ++i) {
      const auto row = row_of(i * 7 % kRows);
      batch.insert(batch.end(), row.begin(), row.end());
    }
    const auto together = Gated(*backend, gates, batch, true);
    for (size_t i = 0; i < rows; ++i) {
      EXPECT_TRUE(
          SameBits(std::span(together).subspan(i * kOutputs, kOutputs), alone[i * 7 % kRows]))
          << "row " << i << " of " << rows;
    }
  }
  const auto first = Gated(*backend, gates, row_of(3), true);
  for (int repeat = 0; repeat < (kSanitized ? 10 : 200); ++repeat) {
    ASSERT_TRUE(SameBits(Gated(*backend, gates, row_of(3), true), first));
  }
}

TEST_P(FusedLinearTest, NanInOneRowStaysThere) {
  const auto backend = Make(2);
  const Gates gates(*backend, 20, 100, {DType::kBF16, WeightFormat::kAsStored}, false);
  for (const size_t rows : {3u, 11u}) {
    const auto clean = RandomFloats(rows * 100, 9);
    auto broken = clean;
    broken[1 * 100 + 99] = std::nanf("");
    const auto expected = Gated(*backend, gates, clean, true);
    const auto got = Gated(*backend, gates, broken, true);
    for (size_t i = 0; i < rows * 20; ++i) {
      EXPECT_EQ(std::isnan(got[i]), i / 20 == 1) << i;
      if (i / 20 != 1) {
        EXPECT_EQ(got[i], expected[i]);
      }
    }
  }
}

struct Heads {
  int32_t query;
  int32_t kv;
  int32_t size;
};

/// q, k and v of an attention, and sequences of which each row continues one.
class QkvHarness {
 public:
  QkvHarness(Backend& backend, const Heads& heads, int64_t inputs, Storage storage, bool biased)
      : backend_(backend), heads_(heads), inputs_(inputs) {
    for (int32_t i = 0; i < heads.size / 2; ++i) {
      rope_.inverse_frequencies.push_back(
          static_cast<float>(std::pow(10000.0, -2.0 * i / heads.size)));
    }
    for (const int32_t count : {heads.query, heads.kv, heads.kv}) {
      const int64_t outputs = count * heads.size;
      const auto seed = static_cast<uint32_t>(10 + weights_.size());
      weights_.push_back(RandomWeight(backend, outputs, inputs, storage, seed));
      biases_.push_back({});
      if (!biased) continue;
      const auto values = RandomFloats(static_cast<size_t>(outputs), seed + 10);
      biases_.back() = Load(backend, values, outputs, DType::kF32);
    }
  }

  /// Tokens at `positions`, each of a sequence of its own; the row of `stray` belongs to none.
  /// Queries, then what attention makes of queries and cache.
  std::vector<float> Run(const std::vector<float>& x, const std::vector<int32_t>& positions,
                         DType pages, bool fused, int32_t stray = -1,
                         const Adapter* adapter = nullptr) {
    const auto rows = static_cast<int32_t>(positions.size());
    const int32_t blocks_of_one = *std::ranges::max_element(positions) / kPage + 1;
    const auto cache =
        backend_.AllocateKvCache({2, rows * blocks_of_one, kPage, heads_.kv, heads_.size, pages})
            .value();
    std::vector<int32_t> table(static_cast<size_t>(rows * blocks_of_one));
    std::iota(table.rbegin(), table.rend(), 0);
    std::vector<SequenceSpan> spans;
    for (int32_t row = 0; row < rows; ++row) {
      if (row == stray) continue;
      spans.push_back({row, 1, positions[static_cast<size_t>(row)], row * blocks_of_one});
    }
    const StepTables step{positions, positions, spans, table};
    FillCache(step, *cache);
    const Activations input = Upload(backend_, x, inputs_);
    const auto target = [&](size_t i) {
      const Activations output = Poisoned(backend_, rows, weights_[i].view.rows);
      return LinearTarget{weights_[i].weight.get(), biases_[i].weight.get(), output};
    };
    const LinearTarget qkv[] = {target(0), target(1), target(2)};
    std::vector<LoraTerm> terms;
    if (adapter != nullptr) terms.push_back(adapter->Term(rows, qkv[0].output));
    if (fused) {
      EXPECT_TRUE(backend_.QkvRopeAppend(input, qkv, terms, rope_, step, kLayer, *cache).ok());
    } else {
      EXPECT_TRUE(backend_.Linear(input, rows, qkv).ok());
      if (adapter != nullptr) {
        EXPECT_TRUE(backend_.AddLora(input, terms).ok());
      }
      EXPECT_TRUE(backend_
                      .RopeAppendKv(rope_, step, kLayer, qkv[0].output, qkv[1].output,
                                    qkv[2].output, *cache)
                      .ok());
    }
    const Activations mixed =
        Upload(backend_, std::vector<float>(static_cast<size_t>(rows * heads_.query * heads_.size)),
               heads_.query * heads_.size);
    EXPECT_TRUE(backend_.Attention(step, kLayer, qkv[0].output, *cache, mixed).ok());
    EXPECT_TRUE(backend_.Sync().ok());
    std::vector<float> result = Downloaded(backend_, qkv[0].output, rows);
    const std::vector<float> attended = Downloaded(backend_, mixed, rows);
    result.insert(result.end(), attended.begin(), attended.end());
    return result;
  }
  int64_t query_width() const { return heads_.query * heads_.size; }

 private:
  static constexpr int32_t kPage = 16;
  static constexpr int32_t kLayer = 1;

  /// The tokens before those of the step; each depends on its position alone.
  void FillCache(const StepTables& step, KvCache& cache) {
    std::vector<int32_t> positions;
    std::vector<SequenceSpan> spans;
    for (const SequenceSpan& span : step.sequences) {
      if (span.first_position == 0) continue;
      spans.push_back({static_cast<int32_t>(positions.size()), span.first_position, 0,
                       span.block_table_offset});
      for (int32_t i = 0; i < span.first_position; ++i) positions.push_back(i);
    }
    if (positions.empty()) return;
    const auto random = [&](int32_t heads, uint32_t seed) {
      const int32_t width = heads * heads_.size;
      std::vector<float> values;
      for (const int32_t position : positions) {
        const auto row =
            RandomFloats(static_cast<size_t>(width), seed + 100 * static_cast<uint32_t>(position));
        values.insert(values.end(), row.begin(), row.end());
      }
      return Upload(backend_, values, width);
    };
    EXPECT_TRUE(backend_
                    .RopeAppendKv(rope_, {positions, positions, spans, step.block_table}, kLayer,
                                  random(heads_.query, 40), random(heads_.kv, 41),
                                  random(heads_.kv, 42), cache)
                    .ok());
    EXPECT_TRUE(backend_.Sync().ok());
  }

  Backend& backend_;
  Heads heads_;
  int64_t inputs_;
  RopeTable rope_;
  std::vector<StoredTensor> weights_;
  std::vector<StoredTensor> biases_;
};

TEST_P(FusedLinearTest, QueriesKeysAndValuesGiveTheBitsOfTheirOperations) {
  const auto backend = Make(2);
  const std::vector<int32_t> all = {0, 5, 17, 1, 3, 16, 2, 7, 15, 1, 0, 9, 8, 2, 4, 6, 10};
  for (const Heads& heads :
       {Heads{4, 2, 32}, Heads{3, 1, 64}, Heads{2, 2, 128}, Heads{2, 1, 96}, Heads{4, 2, 24}}) {
    const int64_t inputs = heads.size == 64 ? 4200 : 600;  // more slices than warps; two of them
    for (const Storage storage : Storages(*backend)) {
      if (heads.size != 32 && storage.dtype != DType::kBF16) continue;
      QkvHarness harness(*backend, heads, inputs, storage, heads.size == 32);
      const Adapter adapter(*backend, inputs, harness.query_width(), 30);
      for (const int64_t rows : {1, 8, 11, 17}) {
        if (heads.size != 32 && rows != 1 && rows != 11) continue;
        const auto x = RandomFloats(static_cast<size_t>(rows * inputs), 31);
        const std::vector<int32_t> positions(all.begin(), all.begin() + rows);
        const DType pages = rows == 8 ? DType::kF32 : DType::kBF16;
        for (const Adapter* adapts : {static_cast<const Adapter*>(nullptr), &adapter}) {
          if (adapts != nullptr && (rows != 11 || heads.size != 32)) continue;
          EXPECT_TRUE(SameBits(harness.Run(x, positions, pages, true, -1, adapts),
                               harness.Run(x, positions, pages, false, -1, adapts)))
              << heads.size << " rows " << rows;
        }
      }
    }
  }
}

TEST_P(FusedLinearTest, ARowOfNoSequenceWritesNoKeys) {
  const auto backend = Make(2);
  QkvHarness harness(*backend, {4, 2, 32}, 100, {DType::kBF16, WeightFormat::kAsStored}, false);
  const auto x = RandomFloats(6 * 100, 32);
  const std::vector<int32_t> positions = {3, 0, 20, 9, 0, 18};
  for (const int32_t stray : {1, 4}) {
    EXPECT_TRUE(SameBits(harness.Run(x, positions, DType::kBF16, true, stray),
                         harness.Run(x, positions, DType::kBF16, false, stray)));
  }
}

TEST_P(FusedLinearTest, ARowOfQueriesHasTheSameBitsInEveryBatchAndEveryTime) {
  const auto backend = Make(2);
  constexpr int64_t kInputs = 1100;
  QkvHarness harness(*backend, {4, 2, 32}, kInputs, {DType::kBF16, WeightFormat::kAsStored}, false);
  const auto width = static_cast<size_t>(harness.query_width());
  const auto x = RandomFloats(20 * kInputs, 33);
  const std::vector<int32_t> all = {0, 5, 17, 1, 3, 16, 2,  7, 15, 1,
                                    0, 9, 8,  2, 4, 6,  10, 3, 1,  11};
  std::vector<std::vector<float>> alone;
  for (int64_t row = 0; row < 20; ++row) {
    const auto first = x.begin() + row * kInputs;
    alone.push_back(
        harness.Run({first, first + kInputs}, {all[static_cast<size_t>(row)]}, DType::kBF16, true));
  }
  for (const size_t rows : {2u, 8u, 9u, 16u, 17u, 20u}) {
    const std::vector<float> batch(x.begin(), x.begin() + static_cast<int64_t>(rows) * kInputs);
    const auto together = harness.Run(
        batch, {all.begin(), all.begin() + static_cast<int64_t>(rows)}, DType::kBF16, true);
    for (size_t row = 0; row < rows; ++row) {
      for (const size_t half : {size_t{0}, rows}) {  // queries, and what attention gives
        EXPECT_TRUE(SameBits(std::span(together).subspan((half + row) * width, width),
                             std::span(alone[row]).subspan(half > 0 ? width : 0, width)))
            << "row " << row << " of " << rows;
      }
    }
  }
  const std::vector<float> some(x.begin(), x.begin() + 3 * kInputs);
  const auto first = harness.Run(some, {4, 0, 18}, DType::kBF16, true);
  for (int repeat = 0; repeat < (kSanitized ? 10 : 200); ++repeat) {
    ASSERT_TRUE(SameBits(harness.Run(some, {4, 0, 18}, DType::kBF16, true), first));
  }
}

}  // namespace
}  // namespace llama_steer
