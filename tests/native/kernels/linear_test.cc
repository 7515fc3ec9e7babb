#include <sys/mman.h>
#include <unistd.h>

#include <numeric>

#include "backend/cpu/cpu_weight.h"
#include "kernels/support.h"

namespace llama_steer {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

struct Shape {
  int64_t outputs;
  int64_t inputs;
};
constexpr Shape kOddShapes[] = {{1, 1},   {1, 7},    {3, 15},   {7, 16},   {8, 17},
                                {9, 31},  {23, 32},  {24, 33},  {97, 64},  {100, 100},
                                {193, 5}, {5, 1000}, {64, 576}, {37, 1539}};

/// Every number of rows that the kernels split differently, and one of several blocks of strips.
std::vector<int64_t> Batches() {
  std::vector<int64_t> batches(40);
  std::iota(batches.begin(), batches.end(), 1);
  batches.push_back(70);
  return batches;
}

enum class Storage { kF32, kF16, kBF16, kInt8, kFp8 };
std::vector<Storage> Storages() {
  std::vector<Storage> all = {Storage::kF32, Storage::kF16, Storage::kBF16, Storage::kInt8};
  if (kOnCuda) all.push_back(Storage::kFp8);
  return all;
}

StoredTensor LoadStored(Backend& backend, const std::vector<float>& values, int64_t cols,
                        Storage storage) {
  switch (storage) {
    case Storage::kF32:
      return Load(backend, values, cols, DType::kF32);
    case Storage::kF16:
      return Load(backend, values, cols, DType::kF16);
    case Storage::kBF16:
      return Load(backend, values, cols, DType::kBF16);
    case Storage::kInt8:
    case Storage::kFp8:
      break;
  }
  if (storage == Storage::kFp8) {
    StoredTensor tensor = Load(backend, values, cols, DType::kF32, WeightFormat::kFp8);
    tensor.exact = Fp8Values(values, cols);
    return tensor;
  }
  StoredTensor tensor = Load(backend, values, cols, DType::kF32, WeightFormat::kInt8);
  tensor.exact = Int8Values(tensor.view);
  return tensor;
}

std::vector<float> Project(Backend& backend, const std::vector<float>& x, const Weight& weight,
                           const Weight* bias = nullptr) {
  const int64_t rows = static_cast<int64_t>(x.size()) / weight.cols;
  const Activations input = Upload(backend, x, weight.cols);
  const LinearTarget target[] = {{&weight, bias, Poisoned(backend, rows, weight.rows)}};
  EXPECT_TRUE(backend.Linear(input, rows, target).ok());
  return Downloaded(backend, target[0].output, rows);
}

std::vector<double> ProjectExactly(const std::vector<float>& x, const StoredTensor& w,
                                   const std::vector<float>& bias) {
  const auto inputs = static_cast<size_t>(w.view.cols);
  const auto outputs = static_cast<size_t>(w.view.rows);
  std::vector<double> y;
  for (size_t t = 0; t < x.size() / inputs; ++t) {
    for (size_t n = 0; n < outputs; ++n) {
      double sum = bias.empty() ? 0.0 : static_cast<double>(bias[n]);
      for (size_t k = 0; k < inputs; ++k) {
        sum +=
            static_cast<double>(x[t * inputs + k]) * static_cast<double>(w.exact[n * inputs + k]);
      }
      y.push_back(sum);
    }
  }
  return y;
}

/// One float32 sum an output, in order: what a plain program does.
std::vector<float> ProjectPlainly(const std::vector<float>& x, const StoredTensor& w,
                                  const std::vector<float>& bias) {
  const auto inputs = static_cast<size_t>(w.view.cols);
  const auto outputs = static_cast<size_t>(w.view.rows);
  std::vector<float> y;
  for (size_t t = 0; t < x.size() / inputs; ++t) {
    for (size_t n = 0; n < outputs; ++n) {
      float sum = 0.0f;
      for (size_t k = 0; k < inputs; ++k) sum += x[t * inputs + k] * w.exact[n * inputs + k];
      y.push_back(bias.empty() ? sum : sum + bias[n]);
    }
  }
  return y;
}

using LinearTest = KernelTest;
INSTANTIATE_FOR_EVERY_TARGET(LinearTest);

TEST_P(LinearTest, IsAsCloseToFloat64AsAPlainSumForEveryShapeAndStorage) {
  const auto backend = Make(2);
  for (const Shape shape : kOddShapes) {
    const auto values = RandomFloats(static_cast<size_t>(shape.outputs * shape.inputs), 1);
    const auto bias = RandomFloats(static_cast<size_t>(shape.outputs), 2);
    const StoredTensor bias_weight = Load(*backend, bias, shape.outputs, DType::kF32);
    for (const Storage storage : Storages()) {
      const StoredTensor weight = LoadStored(*backend, values, shape.inputs, storage);
      for (const int64_t rows : {1, 5, 13}) {
        const auto x = RandomBf16Floats(static_cast<size_t>(rows * shape.inputs), 3);
        const auto exact = ProjectExactly(x, weight, bias);
        const auto got = Project(*backend, x, *weight.weight, bias_weight.weight.get());
        const double plain = RelativeL2(ProjectPlainly(x, weight, bias), exact);
        EXPECT_LE(RelativeL2(got, exact), 2 * plain + 1e-7)
            << shape.outputs << "x" << shape.inputs << " rows " << rows << " storage "
            << static_cast<int>(storage);
      }
    }
  }
}

TEST_P(LinearTest, ARowGetsTheSameBitsAloneAndInEveryBatch) {
  const auto backend = Make(2);
  // The last one exceeds what a second-level cache is taken to hold of a row.
  for (const Shape shape : {Shape{193, 100}, Shape{37, 639}, Shape{5, 17}, Shape{27, 2209}}) {
    const auto values = RandomFloats(static_cast<size_t>(shape.outputs * shape.inputs), 4);
    for (const Storage storage : Storages()) {
      const StoredTensor weight = LoadStored(*backend, values, shape.inputs, storage);
      const auto x = RandomFloats(static_cast<size_t>(70 * shape.inputs), 5);
      std::vector<float> alone;
      for (int64_t t = 0; t < 70; ++t) {
        const auto begin = x.begin() + t * shape.inputs;
        const auto y = Project(*backend, {begin, begin + shape.inputs}, *weight.weight);
        alone.insert(alone.end(), y.begin(), y.end());
      }
      for (const int64_t rows : Batches()) {
        const std::vector<float> batch(x.begin(), x.begin() + rows * shape.inputs);
        const auto together = Project(*backend, batch, *weight.weight);
        EXPECT_TRUE(SameBits(together, std::span(alone).first(together.size())))
            << shape.outputs << "x" << shape.inputs << " rows " << rows << " storage "
            << static_cast<int>(storage);
      }
    }
  }
}

TEST_P(LinearTest, TheNumberOfThreadsChangesNoBit) {
  std::vector<std::vector<float>> results;
  for (const int32_t threads : {1, 2, 3}) {
    const auto backend = Make(threads);
    const StoredTensor weight = Load(*backend, RandomFloats(311 * 129, 6), 129, DType::kBF16);
    std::vector<float> y = Project(*backend, RandomFloats(129, 7), *weight.weight);
    const auto many = Project(*backend, RandomFloats(50 * 129, 8), *weight.weight);
    y.insert(y.end(), many.begin(), many.end());
    results.push_back(std::move(y));
  }
  EXPECT_TRUE(SameBits(results[0], results[1]));
  EXPECT_TRUE(SameBits(results[0], results[2]));
}

TEST_P(LinearTest, SeveralTargetsGiveWhatEachGivesAlone) {
  const auto backend = Make(2);
  const StoredTensor a = Load(*backend, RandomFloats(200 * 48, 9), 48, DType::kBF16);
  const StoredTensor b = Load(*backend, RandomFloats(31 * 48, 10), 48, DType::kF32);
  const auto x = RandomFloats(3 * 48, 11);
  const LinearTarget both[] = {{a.weight.get(), nullptr, Poisoned(*backend, 3, 200)},
                               {b.weight.get(), nullptr, Poisoned(*backend, 3, 31)}};
  ASSERT_TRUE(backend->Linear(Upload(*backend, x, 48), 3, both).ok());
  EXPECT_TRUE(SameBits(Downloaded(*backend, both[0].output, 3), Project(*backend, x, *a.weight)));
  EXPECT_TRUE(SameBits(Downloaded(*backend, both[1].output, 3), Project(*backend, x, *b.weight)));
}

/// As many slices and as few outputs as make blocks share them.
TEST_P(LinearTest, SlicesThatBlocksShareAreAddedInTheirOrder) {
  const auto backend = Make(2);
  constexpr int64_t kInputs = 3100;
  for (const Storage storage : {Storage::kBF16, Storage::kInt8}) {
    const StoredTensor a = LoadStored(*backend, RandomFloats(70 * kInputs, 19), kInputs, storage);
    const StoredTensor b = LoadStored(*backend, RandomFloats(9 * kInputs, 20), kInputs, storage);
    const auto x = RandomFloats(64 * kInputs, 21);
    const auto project = [&](int64_t rows) {
      const Activations input = Upload(*backend, {x.begin(), x.begin() + rows * kInputs}, kInputs);
      const LinearTarget both[] = {{a.weight.get(), nullptr, Poisoned(*backend, rows, 70)},
                                   {b.weight.get(), nullptr, Poisoned(*backend, rows, 9)}};
      EXPECT_TRUE(backend->Linear(input, rows, both).ok());
      std::vector<float> y = Downloaded(*backend, both[0].output, rows);
      const auto more = Downloaded(*backend, both[1].output, rows);
      y.insert(y.end(), more.begin(), more.end());
      return y;
    };
    const auto few = project(3);
    for (const int64_t rows : {17, 40, 64}) {
      const auto many = project(rows);
      EXPECT_TRUE(SameBits(std::span(many).first(3 * 70), std::span(few).first(3 * 70))) << rows;
      EXPECT_TRUE(SameBits(std::span(many).subspan(static_cast<size_t>(rows * 70), 3 * 9),
                           std::span(few).subspan(3 * 70)))
          << rows;
    }
    const auto first = project(21);
    for (int repeat = 0; repeat < (kSanitized ? 3 : 200); ++repeat) {
      ASSERT_TRUE(SameBits(project(21), first));
    }
  }
}

TEST_P(LinearTest, NanAndInfinityStayInTheirRow) {
  const auto backend = Make(2);
  const StoredTensor weight = Load(*backend, RandomFloats(40 * 33, 12), 33, DType::kBF16);
  for (const size_t rows : {2u, 6u, 20u}) {
    const auto clean = RandomFloats(rows * 33, 13);
    auto broken = clean;
    broken[33 + 5] = std::nanf("");
    if (rows > 2) broken[2 * 33 + 32] = std::numeric_limits<float>::infinity();
    const auto expected = Project(*backend, clean, *weight.weight);
    const auto got = Project(*backend, broken, *weight.weight);
    for (size_t t = 0; t < rows; ++t) {
      for (size_t n = 0; n < 40; ++n) {
        if (t == 1 || (rows > 2 && t == 2)) {
          EXPECT_FALSE(std::isfinite(got[t * 40 + n]));
        } else {
          EXPECT_EQ(got[t * 40 + n], expected[t * 40 + n]);
        }
      }
    }
  }
}

/// Memory whose last byte is followed by a page that must not be touched.
class GuardedCopy {
 public:
  explicit GuardedCopy(const std::vector<uint8_t>& bytes) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t whole = (bytes.size() + page - 1) / page * page;
    size_ = whole + page;
    base_ = static_cast<uint8_t*>(
        mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + whole, page, PROT_NONE);
    data_ = base_ + whole - bytes.size();
    std::memcpy(data_, bytes.data(), bytes.size());
  }
  ~GuardedCopy() { munmap(base_, size_); }
  GuardedCopy(const GuardedCopy&) = delete;
  GuardedCopy& operator=(const GuardedCopy&) = delete;
  const void* data() const { return data_; }

 private:
  uint8_t* base_ = nullptr;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

TEST_P(LinearTest, ReadsNothingPastTheEndOfAMappedWeight) {
  const auto backend = Make(2);
  for (const int64_t inputs : {1, 9, 16, 31, 100, 513}) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      StoredTensor tensor =
          Store(RandomFloats(static_cast<size_t>(11 * inputs), 14), inputs, dtype);
      const GuardedCopy guarded(tensor.bytes);
      tensor.view.data = guarded.data();
      auto weight = backend->LoadWeight(tensor.view, WeightFormat::kAsStored);
      ASSERT_TRUE(weight.ok());
      for (const int64_t rows : {1, 3, 20}) {
        const auto x = RandomBf16Floats(static_cast<size_t>(rows * inputs), 15);
        const auto exact = ProjectExactly(x, tensor, {});
        EXPECT_LE(RelativeL2(Project(*backend, x, **weight), exact), 1e-5);
      }
    }
  }
}

TEST_P(LinearTest, ExtremeValuesNeitherOverflowEarlyNorVanish) {
  const auto backend = Make(1);
  std::vector<float> values(4 * 64, 1e19f);
  std::fill(values.begin() + 64, values.begin() + 128, 1e-30f);
  const StoredTensor weight = Load(*backend, values, 64, DType::kF32);
  const auto y = Project(*backend, std::vector<float>(64, 1e17f), *weight.weight);
  EXPECT_NEAR(y[0] / 6.4e37f, 1.0f, 1e-5f);
  EXPECT_NEAR(y[1] / 6.4e-12f, 1.0f, 1e-5f);
}

TEST_P(LinearTest, Bf16FormatRoundsToNearestEven) {
  const auto backend = Make(2);
  constexpr int64_t kCols = 21;
  const auto values = RandomFloats(9 * kCols, 16);
  for (const DType stored : {DType::kF32, DType::kF16}) {
    const StoredTensor weight = Load(*backend, values, kCols, stored, WeightFormat::kBF16);
    EXPECT_EQ(weight.weight->dtype, DType::kBF16);
    // Each row of x picks one column of the weight.
    std::vector<float> unit(kCols * kCols, 0.0f);
    for (size_t i = 0; i < kCols; ++i) unit[i * kCols + i] = 1.0f;
    const auto columns = Project(*backend, unit, *weight.weight);
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(columns[i % kCols * 9 + i / kCols], FloatFromBf16(Bf16FromFloat(weight.exact[i])));
    }
  }
}

TEST_P(LinearTest, Int8CodesAreWithinHalfAStepOfTheirGroupsScale) {
  const auto backend = Make(2);
  auto values = RandomFloats(6 * 75, 17);
  std::fill(values.begin(), values.begin() + 32, 0.0f);  // a group of zeros
  values[40] = 1000.0f;                                  // an outlier spoils its own group only
  const StoredTensor weight = LoadStored(*backend, values, 75, Storage::kInt8);
  for (int64_t row = 0; row < 6; ++row) {
    for (int64_t first = 0; first < 75; first += 32) {
      const int64_t last = std::min<int64_t>(75, first + 32);
      float largest = 0.0f;
      for (int64_t i = first; i < last; ++i) {
        largest = std::max(largest, std::fabs(values[static_cast<size_t>(row * 75 + i)]));
      }
      // The bf16 scale is at most 1/128 above max / 127.
      const float half_step = largest / 127.0f * (1.0f + 1.0f / 128.0f) * 0.5f;
      for (int64_t i = first; i < last; ++i) {
        const auto index = static_cast<size_t>(row * 75 + i);
        EXPECT_LE(std::fabs(weight.exact[index] - values[index]), half_step * 1.0001f);
      }
    }
  }
}

TEST_P(LinearTest, QuantisedFormatsRefuseWhatTheyCannotHold) {
  const auto backend = Make(2);
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kFp8}) {
    if (!backend->HasWeightFormat(format)) continue;
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
      std::vector<float> values(64, 1.0f);
      values[50] = bad;
      const StoredTensor tensor = Store(values, 32, DType::kF32);
      const auto weight = backend->LoadWeight(tensor.view, format);
      ASSERT_FALSE(weight.ok());
      EXPECT_EQ(weight.status().code(), StatusCode::kInvalidArgument);
      EXPECT_NE(weight.status().message().find("test.weight"), std::string::npos);
    }
  }
}

TEST_P(LinearTest, Fp8IsTheNearestE4m3TimesTheScaleOfTheRow) {
  const auto backend = Make(2);
  constexpr int64_t kCols = 254;
  // A row of all codes, both signs: they come back as they are, subnormal ones too.
  std::vector<float> values;
  for (const double code : Fp8Codes()) {
    values.push_back(static_cast<float>(code));
    values.push_back(static_cast<float>(-code));
  }
  const std::vector<float> random = RandomFloats(3 * kCols, 18);
  values.insert(values.end(), random.begin(), random.end());
  values.resize(5 * kCols, 0.0f);  // a row of zeros
  const std::vector<float> expected = Fp8Values(values, kCols);
  const StoredTensor tensor = Store(values, kCols, DType::kF32);
  const auto weight = backend->LoadWeight(tensor.view, WeightFormat::kFp8);
  ASSERT_EQ(weight.ok(), backend->HasWeightFormat(WeightFormat::kFp8));
  if (!weight.ok()) {
    EXPECT_EQ(weight.status().code(), StatusCode::kInvalidArgument);
    return;
  }
  EXPECT_EQ(weight.value()->dtype, DType::kFp8);
  for (const int64_t rows : {int64_t{1}, kCols}) {  // each row of x picks one column of the weight
    for (int64_t first = 0; first < kCols; first += rows == 1 ? 31 : kCols) {
      std::vector<float> unit(static_cast<size_t>(rows * kCols), 0.0f);
      for (int64_t i = 0; i < rows; ++i) unit[static_cast<size_t>(i * kCols + first + i)] = 1.0f;
      const auto columns = Project(*backend, unit, *weight.value());
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t n = 0; n < 5; ++n) {
          EXPECT_EQ(columns[static_cast<size_t>(i * 5 + n)],
                    expected[static_cast<size_t>(n * kCols + first + i)])
              << "row " << n << " column " << first + i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace llama_steer
