#include <algorithm>
#include <numeric>

#include "kernels/support.h"

namespace llama_steer {
namespace {

using namespace test;  // NOLINT: the vocabulary of these tests

constexpr int32_t kPage = 16;

struct Heads {
  int32_t query;
  int32_t kv;
  int32_t size;
};

/// Queries, keys and values of one sequence; its first `past` tokens are in the cache before the
/// step that attends.
struct Sequence {
  int32_t past = 0;
  int32_t fresh = 1;
  std::vector<float> q;  // [past + fresh, Hq * D]
  std::vector<float> k;  // [past + fresh, Hk * D]
  std::vector<float> v;
  int32_t tokens() const { return past + fresh; }
};

Sequence RandomSequence(const Heads& heads, int32_t past, int32_t fresh, uint32_t seed,
                        float scale = 1.0f) {
  Sequence sequence{past, fresh, {}, {}, {}};
  const auto tokens = static_cast<size_t>(past + fresh);
  const auto size = static_cast<size_t>(heads.size);
  sequence.q = RandomBf16Floats(tokens * static_cast<size_t>(heads.query) * size, seed, scale);
  sequence.k = RandomBf16Floats(tokens * static_cast<size_t>(heads.kv) * size, seed + 1, scale);
  sequence.v = RandomBf16Floats(tokens * static_cast<size_t>(heads.kv) * size, seed + 2);
  return sequence;
}

/// A cache whose free blocks are full of NaN, and sequences in shuffled blocks of it.
class Harness {
 public:
  Harness(Backend& backend, const Heads& heads, DType dtype, int32_t blocks)
      : backend_(backend), heads_(heads) {
    auto made = backend.AllocateKvCache({2, blocks, kPage, heads.kv, heads.size, dtype});
    EXPECT_TRUE(made.ok()) << made.status().message();
    cache_ = std::move(made).value();
    free_.resize(static_cast<size_t>(blocks));
    std::iota(free_.begin(), free_.end(), 0);
    std::shuffle(free_.begin(), free_.end(), std::mt19937(99));
    rope_.inverse_frequencies.assign(static_cast<size_t>(heads.size / 2), 0.0f);  // turns nothing
    Poison();
  }

  /// Runs all sequences as one step after their past; output of the fresh tokens, one after
  /// another.
  std::vector<float> Run(std::vector<Sequence> sequences) {
    Tables past;
    Tables fresh;
    std::vector<int32_t> blocks;
    for (const Sequence& sequence : sequences) {
      const auto offset = static_cast<int32_t>(blocks.size());
      for (int32_t token = 0; token < sequence.tokens(); token += kPage) {
        blocks.push_back(free_.back());
        free_.pop_back();
      }
      if (sequence.past > 0) past.Add(0, sequence.past, offset);
      fresh.Add(sequence.past, sequence.fresh, offset);
    }
    Append(past, blocks, sequences, true);
    const Activations q = Append(fresh, blocks, sequences, false);
    const Activations output = Poisoned(backend_, fresh.rows(), heads_.query * heads_.size);
    EXPECT_TRUE(backend_.Attention(fresh.Step(blocks), kLayer, q, *cache_, output).ok());
    EXPECT_TRUE(backend_.Sync().ok());
    free_.insert(free_.end(), blocks.begin(), blocks.end());
    return Downloaded(backend_, output, fresh.rows());
  }

 private:
  static constexpr int32_t kLayer = 1;

  struct Tables {
    std::vector<SequenceSpan> spans;
    std::vector<int32_t> positions;
    void Add(int32_t first, int32_t count, int32_t offset) {
      spans.push_back({rows(), count, first, offset});
      for (int32_t i = 0; i < count; ++i) positions.push_back(first + i);
    }
    int32_t rows() const { return static_cast<int32_t>(positions.size()); }
    StepTables Step(const std::vector<int32_t>& blocks) const {
      return {positions, positions, spans, blocks};
    }
  };

  /// Writes NaN into every block.
  void Poison() {
    Tables all;
    all.Add(0, static_cast<int32_t>(free_.size()) * kPage, 0);
    const auto width = static_cast<size_t>(heads_.kv * heads_.size);
    const std::vector<float> nan(static_cast<size_t>(all.rows()) * width, std::nanf(""));
    const std::vector<float> q(
        static_cast<size_t>(all.rows()) * static_cast<size_t>(heads_.query * heads_.size), 0.0f);
    EXPECT_TRUE(backend_
                    .RopeAppendKv(rope_, all.Step(free_), kLayer,
                                  Upload(backend_, q, heads_.query * heads_.size),
                                  Upload(backend_, nan, heads_.kv * heads_.size),
                                  Upload(backend_, nan, heads_.kv * heads_.size), *cache_)
                    .ok());
    EXPECT_TRUE(backend_.Sync().ok());
  }

  Activations Append(const Tables& tables, const std::vector<int32_t>& blocks,
                     const std::vector<Sequence>& sequences, bool past) {
    std::vector<float> q;
    std::vector<float> k;
    std::vector<float> v;
    const auto copy = [](const std::vector<float>& from, int64_t first, int64_t count,
                         int64_t width, std::vector<float>& to) {
      to.insert(to.end(), from.begin() + first * width, from.begin() + (first + count) * width);
    };
    for (const Sequence& sequence : sequences) {
      const int64_t first = past ? 0 : sequence.past;
      const int64_t count = past ? sequence.past : sequence.fresh;
      copy(sequence.q, first, count, heads_.query * heads_.size, q);
      copy(sequence.k, first, count, heads_.kv * heads_.size, k);
      copy(sequence.v, first, count, heads_.kv * heads_.size, v);
    }
    const Activations queries = Upload(backend_, q, heads_.query * heads_.size);
    if (tables.rows() == 0) return queries;
    EXPECT_TRUE(backend_
                    .RopeAppendKv(rope_, tables.Step(blocks), kLayer, queries,
                                  Upload(backend_, k, heads_.kv * heads_.size),
                                  Upload(backend_, v, heads_.kv * heads_.size), *cache_)
                    .ok());
    EXPECT_TRUE(backend_.Sync().ok());
    return queries;
  }

  Backend& backend_;
  Heads heads_;
  std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> free_;
  RopeTable rope_;
};

/// Softmax attention of the fresh tokens, in the arithmetic of Real, two passes. `round_weights`:
/// to bf16, as tensor cores take them.
template <class Real>
std::vector<Real> Reference(const Heads& heads, const Sequence& sequence,
                            bool round_weights = false) {
  std::vector<Real> output;
  const int32_t group = heads.query / heads.kv;
  const Real scale = Real(1) / std::sqrt(static_cast<Real>(heads.size));
  for (int32_t t = sequence.past; t < sequence.tokens(); ++t) {
    for (int32_t head = 0; head < heads.query; ++head) {
      const float* q = &sequence.q[static_cast<size_t>((t * heads.query + head) * heads.size)];
      std::vector<Real> p;
      Real largest = -std::numeric_limits<Real>::infinity();
      const auto at = [&](const std::vector<float>& x, int32_t token) {
        return &x[static_cast<size_t>((token * heads.kv + head / group) * heads.size)];
      };
      for (int32_t s = 0; s <= t; ++s) {
        Real dot = 0;
        for (int32_t i = 0; i < heads.size; ++i) {
          dot += static_cast<Real>(q[i]) * static_cast<Real>(at(sequence.k, s)[i]);
        }
        p.push_back(dot * scale);
        largest = std::max(largest, p.back());
      }
      Real total = 0;
      for (Real& weight : p) {
        weight = std::exp(weight - largest);
        if (round_weights) {
          weight = static_cast<Real>(FloatFromBf16(Bf16FromFloat(static_cast<float>(weight))));
        }
        total += weight;
      }
      for (int32_t i = 0; i < heads.size; ++i) {
        Real sum = 0;
        for (int32_t s = 0; s <= t; ++s) {
          sum += p[static_cast<size_t>(s)] * static_cast<Real>(at(sequence.v, s)[i]);
        }
        output.push_back(sum / total);
      }
    }
  }
  return output;
}

/// FlashAttention's rule: at most twice the error of the plain computation in the same precision.
void ExpectAccurate(const Heads& heads, const Sequence& sequence, std::span<const float> got,
                    DType dtype) {
  const bool tensor_cores = kOnCuda && dtype == DType::kBF16 &&
                            (heads.size == 32 || heads.size == 64 || heads.size == 128);
  const auto exact = Reference<double>(heads, sequence);
  const double plain = RelativeL2(Reference<float>(heads, sequence, tensor_cores), exact);
  EXPECT_LE(RelativeL2(got, exact), 2 * plain + 3e-7)
      << heads.query << "/" << heads.kv << " heads of " << heads.size << ", " << sequence.past
      << "+" << sequence.fresh << " tokens";
}

using AttentionTest = KernelTest;
INSTANTIATE_FOR_EVERY_TARGET(AttentionTest);

constexpr Heads kHeadShapes[] = {{1, 1, 64}, {9, 3, 64},  {4, 4, 32}, {8, 1, 128},
                                 {6, 2, 80}, {10, 2, 40}, {3, 1, 8},  {2, 1, 256}};

TEST_P(AttentionTest, IsAsAccurateAsThePlainComputationForEveryHeadShape) {
  const auto backend = Make(2);
  for (const Heads& heads : kHeadShapes) {
    for (const DType dtype : {DType::kBF16, DType::kF32}) {
      Harness harness(*backend, heads, dtype, 24);
      for (const auto& [past, fresh] : {std::pair{0, 1}, {0, 16}, {0, 35}, {15, 2}, {40, 1}}) {
        const Sequence sequence = RandomSequence(heads, past, fresh, 7);
        ExpectAccurate(heads, sequence, harness.Run({sequence}), dtype);
      }
    }
  }
}

TEST_P(AttentionTest, IsAccurateOverALongContext) {
  const auto backend = Make(2);
  const Heads heads{3, 1, 64};
  Harness harness(*backend, heads, DType::kBF16, 330);
  const Sequence sequence = RandomSequence(heads, 5000, 2, 8);
  ExpectAccurate(heads, sequence, harness.Run({sequence}), DType::kBF16);
}

TEST_P(AttentionTest, SurvivesScoresThatWouldOverflowAnUnshiftedSoftmax) {
  const auto backend = Make(2);
  const Heads heads{2, 1, 64};
  Harness harness(*backend, heads, DType::kF32, 24);
  for (const float scale : {30.0f, 1e5f, 0.0f}) {
    const Sequence sequence = RandomSequence(heads, 20, 30, 9, scale);
    const auto got = harness.Run({sequence});
    const auto exact = Reference<double>(heads, sequence);
    // Scores of 1e11 differ by far more than their rounding: the softmax is one-hot.
    EXPECT_LE(RelativeL2(got, exact), scale == 30.0f ? 1e-3 : 1e-6) << scale;
  }
}

TEST_P(AttentionTest, ChunksOfAPromptGiveTheBitsOfTheWhole) {
  const auto backend = Make(2);
  for (const Heads& heads : {Heads{9, 3, 64}, Heads{4, 4, 32}, Heads{5, 1, 40}}) {
    Harness harness(*backend, heads, DType::kBF16, 24);
    const Sequence whole = RandomSequence(heads, 0, 67, 10);
    const auto expected = harness.Run({whole});
    const auto width = static_cast<size_t>(heads.query * heads.size);
    for (const auto& [past, fresh] : {std::pair{0, 5}, {5, 30}, {35, 31}, {66, 1}, {16, 16}}) {
      Sequence chunk = whole;
      chunk.past = past;
      chunk.fresh = fresh;
      const auto got = harness.Run({chunk});
      EXPECT_TRUE(SameBits(got, std::span(expected).subspan(static_cast<size_t>(past) * width,
                                                            static_cast<size_t>(fresh) * width)))
          << past << "+" << fresh;
    }
  }
}

TEST_P(AttentionTest, ChunksOfALongPromptGiveTheBitsOfTheWhole) {
  const auto backend = Make(2);
  const Heads heads{4, 2, 64};
  Harness harness(*backend, heads, DType::kBF16, 40);
  const Sequence whole = RandomSequence(heads, 0, 530, 16);
  const auto expected = harness.Run({whole});
  const auto width = static_cast<size_t>(heads.query * heads.size);
  for (const auto& [past, fresh] :
       {std::pair{255, 1}, {256, 1}, {250, 8}, {240, 33}, {300, 230}, {529, 1}}) {
    Sequence chunk = whole;
    chunk.past = past;
    chunk.fresh = fresh;
    const auto got = harness.Run({chunk});
    EXPECT_TRUE(SameBits(got, std::span(expected).subspan(static_cast<size_t>(past) * width,
                                                          static_cast<size_t>(fresh) * width)))
        << past << "+" << fresh;
  }
}

TEST_P(AttentionTest, ASequenceGetsTheSameBitsAloneAndInABatch) {
  const auto backend = Make(2);
  const Heads heads{6, 2, 64};
  Harness harness(*backend, heads, DType::kBF16, 64);
  std::vector<Sequence> batch;
  for (const auto& [past, fresh] : {std::pair{0, 1}, {33, 1}, {0, 21}, {100, 1}, {17, 9}}) {
    batch.push_back(RandomSequence(heads, past, fresh, static_cast<uint32_t>(11 + past)));
  }
  const auto together = harness.Run(batch);
  std::vector<float> alone;
  for (const Sequence& sequence : batch) {
    const auto got = harness.Run({sequence});
    alone.insert(alone.end(), got.begin(), got.end());
  }
  EXPECT_TRUE(SameBits(together, alone));
}

TEST_P(AttentionTest, TheNumberOfThreadsChangesNoBit) {
  const Heads heads{6, 2, 64};
  std::vector<std::vector<float>> results;
  for (const int32_t threads : {1, 2, 3}) {
    const auto backend = Make(threads);
    Harness harness(*backend, heads, DType::kBF16, 64);
    results.push_back(
        harness.Run({RandomSequence(heads, 70, 40, 12), RandomSequence(heads, 3, 1, 13)}));
  }
  EXPECT_TRUE(SameBits(results[0], results[1]));
  EXPECT_TRUE(SameBits(results[0], results[2]));
}

TEST_P(AttentionTest, ABrokenTokenReachesLaterTokensOfItsSequenceOnly) {
  const auto backend = Make(2);
  const Heads heads{2, 1, 32};
  const auto width = static_cast<size_t>(heads.query * heads.size);
  constexpr size_t kBroken = 20;  // between two pages, in the middle of a chunk
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    Harness harness(*backend, heads, DType::kBF16, 24);
    const Sequence clean = RandomSequence(heads, 0, 40, 14);
    Sequence broken = clean;
    broken.v[kBroken * static_cast<size_t>(heads.size) + 3] = bad;
    broken.k[kBroken * static_cast<size_t>(heads.size) + 4] = std::nanf("");
    const Sequence other = RandomSequence(heads, 0, 40, 15);
    const auto expected = harness.Run({clean, other});
    const auto got = harness.Run({broken, other});
    const auto rows = [&](const std::vector<float>& x, size_t first, size_t count) {
      return std::span(x).subspan(first * width, count * width);
    };
    EXPECT_TRUE(SameBits(rows(got, 0, kBroken), rows(expected, 0, kBroken)));
    EXPECT_TRUE(SameBits(rows(got, 40, 40), rows(expected, 40, 40)));
    for (size_t t = kBroken; t < 40; ++t) {
      EXPECT_TRUE(std::isnan(got[t * width + 3])) << t;
    }
  }
}

TEST_P(AttentionTest, RefusesACacheItCannotHold) {
  const auto backend = Make(1);
  const KvCacheShape good{1, 4, 16, 1, 64, DType::kBF16};
  for (const auto& change : std::vector<std::function<void(KvCacheShape&)>>{
           [](KvCacheShape& shape) { shape.block_tokens = 32; },
           [](KvCacheShape& shape) { shape.head_size = 12; },
           [](KvCacheShape& shape) { shape.head_size = 0; },
           [](KvCacheShape& shape) { shape.head_size = 512; },
           [](KvCacheShape& shape) { shape.dtype = DType::kInt8; }}) {
    KvCacheShape shape = good;
    change(shape);
    const auto made = backend->AllocateKvCache(shape);
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.status().code(), StatusCode::kInvalidArgument);
  }
  KvCacheShape huge = good;
  huge.layers = huge.blocks = 1 << 30;
  const auto made = backend->AllocateKvCache(huge);
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.status().code(), StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace llama_steer
