// LoRA terms against a float64 reference, and what they must leave alone.
#include "kernels/support.h"

namespace llama_steer {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

struct Shape {
  int64_t inputs;
  int64_t outputs;
  int64_t rank;
};
constexpr Shape kShapes[] = {{1, 1, 1},      {7, 3, 1},     {16, 31, 2},  {48, 96, 3},
                             {64, 33, 4},    {33, 64, 8},   {100, 65, 7}, {576, 70, 9},
                             {96, 1000, 16}, {128, 64, 25}, {64, 513, 64}};
constexpr DType kDTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

/// An adapter for one projection; keeps what it was made of.
struct Lora {
  StoredTensor a;
  StoredTensor b;
  std::unique_ptr<LoraWeight> weight;
};

Lora MakeLora(Backend& backend, const Shape& shape, DType dtype, uint32_t seed, float scale) {
  Lora lora;
  const auto size = [](int64_t rows, int64_t cols) { return static_cast<size_t>(rows * cols); };
  lora.a = Store(RandomFloats(size(shape.rank, shape.inputs), seed), shape.inputs, dtype);
  lora.b = Store(RandomFloats(size(shape.outputs, shape.rank), seed + 1), shape.rank, dtype);
  StatusOr<std::unique_ptr<LoraWeight>> made = backend.LoadLora(lora.a.view, lora.b.view, scale);
  EXPECT_TRUE(made.ok()) << made.status().message();
  if (made.ok()) lora.weight = std::move(made).value();
  return lora;
}

/// y + scale · B (A x) of one row; T is double for the reference, float for a plain program.
template <class T>
std::vector<T> AddOne(const Lora& lora, std::span<const float> x, std::span<const float> y) {
  const auto inputs = static_cast<size_t>(lora.a.view.cols);
  const auto rank = static_cast<size_t>(lora.a.view.rows);
  std::vector<T> reduced(rank, T{0});
  for (size_t k = 0; k < rank; ++k) {
    for (size_t i = 0; i < inputs; ++i) {
      reduced[k] += static_cast<T>(lora.a.exact[k * inputs + i]) * static_cast<T>(x[i]);
    }
  }
  std::vector<T> result;
  for (size_t n = 0; n < y.size(); ++n) {
    T sum{0};
    for (size_t k = 0; k < rank; ++k) {
      sum += static_cast<T>(lora.b.exact[n * rank + k]) * reduced[k];
    }
    result.push_back(static_cast<T>(y[n]) + static_cast<T>(lora.weight->scale) * sum);
  }
  return result;
}

using LoraTest = KernelTest;
INSTANTIATE_FOR_EVERY_TARGET(LoraTest);

TEST_P(LoraTest, IsAsCloseToFloat64AsAPlainSumForEveryShapeAndStorage) {
  const auto backend = Make(2);
  for (const Shape& shape : kShapes) {
    for (const DType dtype : kDTypes) {
      const Lora lora = MakeLora(*backend, shape, dtype, 10, 0.75f);
      for (const int64_t rows : {1, 3, 5, 13, 70}) {
        const auto x = RandomFloats(static_cast<size_t>(rows * shape.inputs), 3);
        const auto y = RandomFloats(static_cast<size_t>(rows * shape.outputs), 4);
        const Activations output = Upload(*backend, y, shape.outputs);
        const LoraTerm term[] = {{lora.weight.get(), 0, static_cast<int32_t>(rows), output}};
        ASSERT_TRUE(backend->AddLora(Upload(*backend, x, shape.inputs), term).ok());
        const auto got = Downloaded(*backend, output, rows);
        std::vector<double> exact;
        std::vector<float> plain;
        for (size_t t = 0; t < static_cast<size_t>(rows); ++t) {
          const auto inputs = static_cast<size_t>(shape.inputs);
          const auto outputs = static_cast<size_t>(shape.outputs);
          const auto in = std::span(x).subspan(t * inputs, inputs);
          const auto before = std::span(y).subspan(t * outputs, outputs);
          for (const double value : AddOne<double>(lora, in, before)) exact.push_back(value);
          for (const float value : AddOne<float>(lora, in, before)) plain.push_back(value);
        }
        EXPECT_LE(RelativeL2(got, exact), 2 * RelativeL2(plain, exact) + 2e-7)
            << shape.inputs << "->" << shape.outputs << " rank " << shape.rank << " rows " << rows;
      }
    }
  }
}

TEST_P(LoraTest, ARowsBitsAreTheSameAloneAndBesideOthersOnAnyNumberOfThreads) {
  const Shape shape{.inputs = 192, .outputs = 140, .rank = 29};
  constexpr int64_t kRows = 150;
  const auto x = RandomFloats(kRows * 192, 3);
  const auto y = RandomFloats(kRows * 140, 4);
  std::vector<float> together;
  for (const int32_t threads : {1, 2, 3}) {
    const auto backend = Make(threads);
    const Lora first = MakeLora(*backend, shape, DType::kBF16, 10, 2.0f);
    const Lora second = MakeLora(*backend, shape, DType::kF32, 20, 0.5f);
    const Activations input = Upload(*backend, x, shape.inputs);
    const auto run = [&](std::span<const LoraTerm> terms, Activations output) {
      EXPECT_TRUE(backend->AddLora(input, terms).ok());
      return Downloaded(*backend, output, kRows);
    };
    Activations output = Upload(*backend, y, shape.outputs);
    const LoraTerm terms[] = {{first.weight.get(), 3, 80, output},
                              {second.weight.get(), 90, 60, output}};
    const auto got = run(terms, output);
    if (together.empty()) together = got;
    EXPECT_TRUE(SameBits(got, together)) << threads << " threads";
    for (const int32_t row : {3, 4, 40, 82, 90, 149}) {
      output = Upload(*backend, y, shape.outputs);
      const LoraTerm alone[] = {{(row < 83 ? first : second).weight.get(), row, 1, output}};
      const auto single = run(alone, output);
      const auto at = static_cast<size_t>(row * shape.outputs);
      EXPECT_TRUE(SameBits(std::span(single).subspan(at, 140), std::span(got).subspan(at, 140)))
          << "row " << row;
    }
  }
}

TEST_P(LoraTest, RowsOutsideTheTermsKeepTheirBits) {
  const auto backend = Make(2);
  const Shape shape{.inputs = 32, .outputs = 48, .rank = 4};
  const Lora lora = MakeLora(*backend, shape, DType::kF32, 10, 1.0f);
  const auto x = RandomFloats(10 * 32, 3);
  const auto y = RandomFloats(10 * 48, 4);
  const Activations output = Upload(*backend, y, shape.outputs);
  const LoraTerm terms[] = {{lora.weight.get(), 2, 1, output}, {lora.weight.get(), 7, 2, output}};
  ASSERT_TRUE(backend->AddLora(Upload(*backend, x, shape.inputs), terms).ok());
  const auto got = Downloaded(*backend, output, 10);
  for (const size_t row : {0u, 1u, 2u, 3u, 6u, 7u, 8u, 9u}) {
    const bool named = row == 2 || row == 7 || row == 8;
    EXPECT_NE(SameBits(std::span(got).subspan(row * 48, 48), std::span(y).subspan(row * 48, 48)),
              named)
        << "row " << row;
  }
}

TEST_P(LoraTest, SeveralOutputsOfOneInputTakeTheirOwnFactors) {
  const auto backend = Make(2);
  const Lora wide = MakeLora(*backend, {40, 80, 5}, DType::kF32, 10, 1.5f);
  const Lora narrow = MakeLora(*backend, {40, 17, 2}, DType::kF16, 20, -1.0f);
  const auto x = RandomFloats(6 * 40, 3);
  const Activations input = Upload(*backend, x, 40);
  const auto run = [&](bool both) {
    const Activations a = Upload(*backend, std::vector<float>(6 * 80, 0.25f), 80);
    const Activations b = Upload(*backend, std::vector<float>(6 * 17, 0.5f), 17);
    const LoraTerm terms[] = {{wide.weight.get(), 1, 4, a}, {narrow.weight.get(), 1, 4, b}};
    if (both) {
      EXPECT_TRUE(backend->AddLora(input, terms).ok());
    } else {
      EXPECT_TRUE(backend->AddLora(input, std::span(terms).first(1)).ok());
      EXPECT_TRUE(backend->AddLora(input, std::span(terms).last(1)).ok());
    }
    auto values = Downloaded(*backend, a, 6);
    const auto rest = Downloaded(*backend, b, 6);
    values.insert(values.end(), rest.begin(), rest.end());
    return values;
  };
  EXPECT_TRUE(SameBits(run(true), run(false)));
}

TEST_P(LoraTest, FactorsThatDoNotFitEachOtherAreRefused) {
  const auto backend = Make(1);
  const StoredTensor a = Store(RandomFloats(2 * 8, 1), 8, DType::kF32);
  const StoredTensor b = Store(RandomFloats(5 * 3, 1), 3, DType::kF32);
  EXPECT_EQ(backend->LoadLora(a.view, b.view, 1.0f).status().code(), StatusCode::kInvalidArgument);
}

TEST_P(LoraTest, UploadedRowsStandInOrder) {
  const auto backend = Make(1);
  const auto host = RandomFloats(4 * 24, 1);
  const float* rows[] = {host.data() + 48, host.data(), host.data() + 72};
  const Activations to = Poisoned(*backend, 3, 24);
  ASSERT_TRUE(backend->UploadRows(rows, to).ok());
  const auto got = Downloaded(*backend, to, 3);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(SameBits(std::span(got).subspan(i * 24, 24), std::span(rows[i], 24)));
  }
}

}  // namespace
}  // namespace llama_steer
