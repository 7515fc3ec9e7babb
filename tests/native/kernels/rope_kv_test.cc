#include "kernels/support.h"

namespace llama_steer {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

using RopeKvTest = KernelTest;
INSTANTIATE_FOR_EVERY_TARGET(RopeKvTest);

struct Fixture {
  std::unique_ptr<KvCache> cache;
  std::vector<int32_t> blocks;
  std::vector<int32_t> positions;
  std::vector<SequenceSpan> spans;
  StepTables Step() const { return {positions, positions, spans, blocks}; }
};

Fixture OneSequence(Backend& backend, int32_t heads, int32_t size, int32_t first, int32_t count) {
  Fixture fixture;
  const int32_t blocks = (first + count + 15) / 16;
  fixture.cache = backend.AllocateKvCache({1, 2 * blocks, 16, heads, size, DType::kF32}).value();
  for (int32_t i = 0; i < blocks; ++i) fixture.blocks.push_back(2 * blocks - 1 - i);
  for (int32_t i = 0; i < count; ++i) fixture.positions.push_back(first + i);
  fixture.spans = {{0, count, first, 0}};
  return fixture;
}

RopeTable Frequencies(int32_t size) {
  RopeTable rope;
  for (int32_t i = 0; i < size / 2; ++i) {
    rope.inverse_frequencies.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / size)));
  }
  return rope;
}

TEST_P(RopeKvTest, TurnsHalvesOfEachHeadByThePositionsAngle) {
  const auto backend = Make(2);
  constexpr int32_t kSize = 24;
  const RopeTable rope = Frequencies(kSize);
  for (const int32_t first : {0, 1000, 131000}) {
    Fixture fixture = OneSequence(*backend, 2, kSize, first, 3);
    const auto q = RandomFloats(3 * 4 * kSize, 1);
    const auto k = RandomFloats(3 * 2 * kSize, 2);
    const Activations queries = Upload(*backend, q, 4 * kSize);
    const Activations keys = Upload(*backend, k, 2 * kSize);
    const Activations values = Upload(*backend, RandomFloats(3 * 2 * kSize, 3), 2 * kSize);
    ASSERT_TRUE(
        backend->RopeAppendKv(rope, fixture.Step(), 0, queries, keys, values, *fixture.cache).ok());
    ASSERT_TRUE(backend->Sync().ok());
    const auto turned = [&](const std::vector<float>& x, int32_t heads) {
      std::vector<double> out(x.begin(), x.end());
      for (size_t head = 0; head < static_cast<size_t>(3 * heads); ++head) {
        const auto position = static_cast<float>(first + static_cast<int32_t>(head) / heads);
        for (size_t i = 0; i < kSize / 2; ++i) {
          // The angle is a float32 by definition (transformers computes it so).
          const double angle = static_cast<double>(position * rope.inverse_frequencies[i]);
          const double low = static_cast<double>(x[head * kSize + i]);
          const double high = static_cast<double>(x[head * kSize + kSize / 2 + i]);
          out[head * kSize + i] = low * std::cos(angle) - high * std::sin(angle);
          out[head * kSize + kSize / 2 + i] = high * std::cos(angle) + low * std::sin(angle);
        }
      }
      return out;
    };
    EXPECT_LE(RelativeL2(Downloaded(*backend, queries, 3), turned(q, 4)), 1e-7) << first;
    EXPECT_LE(RelativeL2(Downloaded(*backend, keys, 3), turned(k, 2)), 1e-7) << first;
  }
}

TEST_P(RopeKvTest, APositionTurnsTheSameWhateverCameBefore) {
  const auto backend = Make(2);
  const RopeTable rope = Frequencies(32);
  const auto q = RandomFloats(32, 4);
  const auto at = [&](int32_t position) {
    Fixture fixture = OneSequence(*backend, 1, 32, position, 1);
    const Activations queries = Upload(*backend, q, 32);
    const Activations keys = Upload(*backend, q, 32);
    EXPECT_TRUE(backend
                    ->RopeAppendKv(rope, fixture.Step(), 0, queries, keys, Upload(*backend, q, 32),
                                   *fixture.cache)
                    .ok());
    EXPECT_TRUE(backend->Sync().ok());
    return Downloaded(*backend, queries, 1);
  };
  const auto early = at(7);
  at(900);  // grows the table of cosines
  EXPECT_TRUE(SameBits(at(7), early));
}

TEST_P(RopeKvTest, CopiedBlocksHoldTheSameTokens) {
  const auto backend = Make(2);
  constexpr int32_t kSize = 16;
  const RopeTable rope = Frequencies(kSize);
  Fixture fixture = OneSequence(*backend, 2, kSize, 0, 20);
  const auto q = RandomFloats(20 * 2 * kSize, 5);
  const Activations queries = Upload(*backend, q, 2 * kSize);
  ASSERT_TRUE(backend
                  ->RopeAppendKv(rope, fixture.Step(), 0, queries,
                                 Upload(*backend, RandomFloats(20 * 2 * kSize, 6), 2 * kSize),
                                 Upload(*backend, RandomFloats(20 * 2 * kSize, 7), 2 * kSize),
                                 *fixture.cache)
                  .ok());
  const auto attend = [&] {
    const Activations out = Poisoned(*backend, 20, 2 * kSize);
    EXPECT_TRUE(backend->Attention(fixture.Step(), 0, queries, *fixture.cache, out).ok());
    EXPECT_TRUE(backend->Sync().ok());
    return Downloaded(*backend, out, 20);
  };
  const auto before = attend();
  const std::vector<BlockCopy> copies = {{fixture.blocks[0], 0}, {fixture.blocks[1], 1}};
  ASSERT_TRUE(backend->CopyKvBlocks(copies, *fixture.cache).ok());
  fixture.blocks = {0, 1};
  EXPECT_TRUE(SameBits(attend(), before));
}

}  // namespace
}  // namespace llama_steer
