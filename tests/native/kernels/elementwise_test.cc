#include "kernels/support.h"

namespace llama_steer {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

using ElementwiseTest = KernelTest;
INSTANTIATE_FOR_EVERY_TARGET(ElementwiseTest);

TEST_P(ElementwiseTest, EmbedsTheStoredValues) {
  const auto backend = Make(2);
  for (const int64_t d : {1, 15, 64, 100}) {
    const auto values = RandomFloats(static_cast<size_t>(11 * d), 1);
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      const StoredTensor table = Load(*backend, values, d, dtype);
      const std::vector<int32_t> ids = {10, 0, 3, 3};
      StepTables step;
      step.token_ids = ids;
      const Activations out = Poisoned(*backend, 4, d);
      ASSERT_TRUE(backend->Embed(*table.weight, step, out).ok());
      const auto got = Downloaded(*backend, out, 4);
      for (size_t t = 0; t < 4; ++t) {
        const auto row = static_cast<size_t>(ids[t] * d);
        EXPECT_TRUE(
            SameBits(std::span(got).subspan(t * static_cast<size_t>(d), static_cast<size_t>(d)),
                     std::span(table.exact).subspan(row, static_cast<size_t>(d))));
      }
    }
  }
}

TEST_P(ElementwiseTest, HalfPrecisionIsReadExactlyDownToSubnormals) {
  const auto backend = Make(1);
  std::vector<float> values;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = FloatFromF16(static_cast<uint16_t>(bits));
    values.push_back(std::isnan(value) ? 0.0f : value);
  }
  const StoredTensor table = Load(*backend, values, 0x10000, DType::kF16);
  const std::vector<int32_t> ids = {0};
  StepTables step;
  step.token_ids = ids;
  const Activations out = Poisoned(*backend, 1, 0x10000);
  ASSERT_TRUE(backend->Embed(*table.weight, step, out).ok());
  EXPECT_TRUE(SameBits(Downloaded(*backend, out, 1), values));
}

TEST_P(ElementwiseTest, SiluMulIsRightOverTheWholeRange) {
  const auto backend = Make(2);
  std::vector<float> gate;
  for (float x = -120.0f; x <= 120.0f; x += 0.0625f) gate.push_back(x);
  for (const float x : {-1e30f, -1000.0f, -200.0f, 200.0f, 1e30f, 0.0f, 1e-30f}) gate.push_back(x);
  const auto up = RandomFloats(gate.size(), 2);
  const auto cols = static_cast<int64_t>(gate.size());
  const Activations g = Upload(*backend, gate, cols);
  ASSERT_TRUE(backend->SiluMul(1, g, Upload(*backend, up, cols)).ok());
  const auto got = Downloaded(*backend, g, 1);
  for (size_t i = 0; i < gate.size(); ++i) {
    const double x = static_cast<double>(gate[i]);
    const double exact = x / (1.0 + std::exp(-x)) * static_cast<double>(up[i]);
    EXPECT_NEAR(got[i], exact, 1e-36 + 5e-7 * std::fabs(exact)) << gate[i];
  }
}

TEST_P(ElementwiseTest, SiluMulGivesTheSameBitsWhereverAValueStandsAndKeepsNan) {
  const auto backend = Make(3);
  const auto gate = RandomFloats(3 * 16401, 3, 4.0f);
  const auto up = RandomFloats(3 * 16401, 4);
  const Activations together = Upload(*backend, gate, 16401);
  ASSERT_TRUE(backend->SiluMul(3, together, Upload(*backend, up, 16401)).ok());
  const auto expected = Downloaded(*backend, together, 3);
  for (const size_t first : {size_t{0}, size_t{3}, size_t{16400}, size_t{40001}, size_t{49198}}) {
    const size_t count = std::min<size_t>(9, gate.size() - first);
    const auto part_of = [&](const std::vector<float>& x) {
      const auto begin = x.begin() + static_cast<std::ptrdiff_t>(first);
      return Upload(*backend, {begin, begin + static_cast<std::ptrdiff_t>(count)},
                    static_cast<int64_t>(count));
    };
    const Activations part = part_of(gate);
    ASSERT_TRUE(backend->SiluMul(1, part, part_of(up)).ok());
    EXPECT_TRUE(SameBits(Downloaded(*backend, part, 1), std::span(expected).subspan(first, count)));
  }
  const Activations broken = Upload(*backend, std::vector<float>(20, std::nanf("")), 20);
  ASSERT_TRUE(backend->SiluMul(1, broken, Upload(*backend, RandomFloats(20, 5), 20)).ok());
  for (const float value : Downloaded(*backend, broken, 1)) EXPECT_TRUE(std::isnan(value));
}

TEST_P(ElementwiseTest, GathersRowsInTheOrderAskedFor) {
  const auto backend = Make(1);
  const auto values = RandomFloats(5 * 7, 6);
  const std::vector<int32_t> rows = {4, 0, 4};
  const Activations out = Poisoned(*backend, 3, 7);
  ASSERT_TRUE(backend->GatherRows(Upload(*backend, values, 7), rows, out).ok());
  const auto got = Downloaded(*backend, out, 3);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(SameBits(std::span(got).subspan(i * 7, 7),
                         std::span(values).subspan(static_cast<size_t>(rows[i]) * 7, 7)));
  }
}

}  // namespace
}  // namespace llama_steer
