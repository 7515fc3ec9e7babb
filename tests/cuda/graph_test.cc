// Decode passes replayed from graphs: the bits and the proofs of those that are taken operation by
// operation, and no allocation once the buffers are there. The emulator counts launches and
// allocations; a GPU is asked for the bits alone.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "backend/loader.h"
#include "emulator/counters.h"
#include "model/llama.h"
#include "model/runner.h"
#include "model/tiny_checkpoint.h"

namespace llama_steer {
namespace {

using test::Prompt;
using test::TinyCheckpoint;

constexpr int32_t kSequences = 11;
constexpr int32_t kMostSequences = 18;
constexpr int32_t kBlocksOfOne = 20;  // beyond one split of attention
constexpr int32_t kProofStride = 2;

#ifdef LLAMA_STEER_TEST_EMULATOR
/// Of the plugin, which has been loaded.
cuda::emulator::EmulatorCounters Counters() {
  void* plugin = dlopen(LLAMA_STEER_TEST_EMULATOR, RTLD_NOW | RTLD_NOLOAD);
  if (plugin == nullptr) return {};
  const auto counters = reinterpret_cast<cuda::emulator::CountersFunction>(
      dlsym(plugin, cuda::emulator::kCountersEntryPoint));
  return counters == nullptr ? cuda::emulator::EmulatorCounters{} : counters();
}
#endif

LlamaConfig Config(int32_t head_size) {
  LlamaConfig config = test::TinyConfig();
  config.head_size = head_size;
  return config;
}

/// What a step left.
struct Outcome {
  std::vector<float> logits;
  std::vector<uint32_t> layers_acted;
  std::vector<float> delta_ratios;
  bool operator==(const Outcome&) const = default;
};

/// A model on which kSequences sequences are prefilled and then continued token by token.
class Decoder {
 public:
  Decoder(const LlamaConfig& config, TinyCheckpoint& checkpoint, bool graphs) : config_(config) {
    setenv("LLAMA_STEER_CUDA_GRAPHS", graphs ? "on" : "off", 1);
    backend_ = CreateBackend("cuda", "auto", 2).value();
    unsetenv("LLAMA_STEER_CUDA_GRAPHS");
    model_ = LlamaModel::Load(*backend_, config, checkpoint.files(), WeightFormat::kAsStored, 64,
                              64, nullptr)
                 .value();
    const KvCacheShape shape{.layers = config.layers,
                             .blocks = kMostSequences * kBlocksOfOne,
                             .kv_heads = config.kv_heads,
                             .head_size = config.head_size};
    cache_ = backend_->AllocateKvCache(shape).value();
    for (uint32_t seed : {5u, 6u}) {
      std::vector<float> row(static_cast<size_t>(config.hidden_size));
      for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>((i * seed) % 7) - 3.0f;
      vectors_.push_back(backend_->PutVectorRow(row).value());
    }
    lengths_.assign(kMostSequences, 0);
  }

  void Prefill(int32_t sequence, int32_t tokens) {
    const std::vector<int32_t> prompt =
        Prompt(tokens, static_cast<uint32_t>(sequence), config_.vocab_size);
    for (size_t first = 0; first < prompt.size(); first += 64) {
      const size_t count = std::min<size_t>(64, prompt.size() - first);
      Forward({sequence}, {prompt.begin() + static_cast<std::ptrdiff_t>(first),
                           prompt.begin() + static_cast<std::ptrdiff_t>(first + count)});
    }
  }

  /// One token for each of the first `count` sequences; every second one steered, not always alike.
  Outcome Decode(int32_t count, bool steered) {
    std::vector<int32_t> sequences(static_cast<size_t>(count));
    std::iota(sequences.begin(), sequences.end(), 0);
    std::vector<int32_t> tokens;
    for (const int32_t sequence : sequences) {
      tokens.push_back((7 * lengths_[static_cast<size_t>(sequence)] + sequence) %
                       config_.vocab_size);
    }
    return Forward(sequences, tokens, steered);
  }

 private:
  /// Tokens of one sequence, or one token each of several.
  Outcome Forward(const std::vector<int32_t>& sequences, const std::vector<int32_t>& tokens,
                  bool steered = false) {
    const auto each = static_cast<int32_t>(tokens.size() / sequences.size());
    std::vector<int32_t> positions;
    std::vector<int32_t> table;
    std::vector<SequenceSpan> spans;
    for (const int32_t sequence : sequences) {
      int32_t& length = lengths_[static_cast<size_t>(sequence)];
      spans.push_back({static_cast<int32_t>(positions.size()), each, length,
                       static_cast<int32_t>(table.size())});
      for (int32_t i = 0; i < each; ++i) positions.push_back(length++);
      for (int32_t block = 0; block < kBlocksOfOne; ++block) {
        table.push_back((sequence * kBlocksOfOne + block * 7 % kBlocksOfOne));
      }
    }
    std::vector<int32_t> rows(tokens.size());
    std::iota(rows.begin(), rows.end(), 0);
    LlamaStep step;
    step.tables = {tokens, positions, spans, table};
    step.logit_rows = rows;
    Steering(tokens.size());
    if (steered) step.steering = &steering_;
    EXPECT_TRUE(model_->Forward(step, *cache_).ok());
    Outcome outcome;
    outcome.logits.resize(tokens.size() * static_cast<size_t>(config_.vocab_size));
    EXPECT_TRUE(
        backend_->Download(model_->logits(), static_cast<int64_t>(tokens.size()), outcome.logits)
            .ok());
    EXPECT_TRUE(backend_->Sync().ok());
    for (const SteerProof& proof : proofs_) {
      outcome.layers_acted.push_back(proof.layers_acted);
      outcome.delta_ratios.push_back(proof.delta_ratio_sum);
    }
    return outcome;
  }

  /// Slot 1: an addition that changes with the length; slot 2: a projection, on odd steps only.
  void Steering(size_t rows) {
    const int32_t length = lengths_[0];
    const auto coefficient = static_cast<float>(length % 5) + 0.5f;
    ops_ = {{.vector_row = vectors_[0], .coefficient = coefficient, .position_end = 1 << 20},
            {.kind = SteerKind::kProjectOut,
             .steering_index = 1,
             .vector_row = vectors_[1],
             .position_end = 1 << 20}};
    if (length % 2 == 0) ops_.pop_back();
    const auto end = static_cast<int32_t>(ops_.size());
    ranges_.clear();
    for (int32_t layer = 0; layer < config_.layers; ++layer) {
      ranges_.insert(ranges_.end(), {{0, 0}, {0, 1}, {0, layer == 1 ? end : 0}});
    }
    row_slot_.assign(rows, 0);
    for (size_t i = 0; i < rows; i += 2) row_slot_[i] = 1 + static_cast<int32_t>(i / 2 % 2);
    proofs_.assign(rows * kProofStride, {});
    steering_ = {.row_slot = row_slot_,
                 .ranges = ranges_,
                 .slots = 3,
                 .ops = ops_,
                 .proof = proofs_.data(),
                 .proof_stride = kProofStride};
  }

  LlamaConfig config_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LlamaModel> model_;
  std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> vectors_;
  std::vector<int32_t> lengths_;
  std::vector<SteerOp> ops_;
  std::vector<SteerOpRange> ranges_;
  std::vector<int32_t> row_slot_;
  std::vector<SteerProof> proofs_;
  SteerTables steering_;
};

/// A batch that grows and shrinks, with one sequence that passes from one split to the next.
std::vector<Outcome> Outcomes(const LlamaConfig& config, TinyCheckpoint& checkpoint, bool graphs) {
  Decoder decoder(config, checkpoint, graphs);
  decoder.Prefill(0, 253);
  for (int32_t sequence = 1; sequence < kSequences; ++sequence) {
    decoder.Prefill(sequence, 3 + sequence);
  }
  std::vector<Outcome> outcomes;
  for (const int32_t count : {1, 1, 1, 2, 2, 10, 11, 9, 11, 2, 1}) {
    for (const bool steered : {false, true}) {
      if (!steered || count > 1) outcomes.push_back(decoder.Decode(count, steered));
    }
  }
  return outcomes;
}

TEST(Graphs, AReplayedPassHasTheBitsAndTheProofsOfItsOperations) {
  for (const int32_t head_size : {32, 16}) {  // on tensor cores, and in float32
    const LlamaConfig config = Config(head_size);
    TinyCheckpoint checkpoint(config);
    const std::vector<Outcome> expected = Outcomes(config, checkpoint, false);
#ifdef LLAMA_STEER_TEST_EMULATOR
    const uint64_t before = Counters().graph_launches;  // of the head size before
#endif
    const std::vector<Outcome> replayed = Outcomes(config, checkpoint, true);
#ifdef LLAMA_STEER_TEST_EMULATOR
    EXPECT_GE(Counters().graph_launches, before + 8);
#endif
    ASSERT_EQ(replayed.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(replayed[i], expected[i]) << i;
  }
}

TEST(Graphs, BlocksThatShareSlicesDoSoInAReplayToo) {
  LlamaConfig config = Config(32);
  config.hidden_size = 1088;  // three slices, and on a small device too few tiles of q, k and v
  config.query_heads = 2;
  config.kv_heads = config.layers = 1;
  TinyCheckpoint checkpoint(config);
  const auto outcomes = [&](bool graphs) {
    Decoder decoder(config, checkpoint, graphs);
    std::vector<Outcome> each;
    for (int32_t step = 0; step < 3; ++step) each.push_back(decoder.Decode(kMostSequences, false));
    return each;
  };
  EXPECT_EQ(outcomes(true), outcomes(false));
}

#ifdef LLAMA_STEER_TEST_EMULATOR
TEST(Graphs, ADecodeAllocatesNothingOnceItsBuffersAreThere) {
  const LlamaConfig config = Config(32);
  TinyCheckpoint checkpoint(config);
  for (const bool graphs : {false, true}) {
    Decoder decoder(config, checkpoint, graphs);
    for (int32_t sequence = 0; sequence < kSequences; ++sequence) decoder.Prefill(sequence, 20);
    for (const bool steered : {true, false}) decoder.Decode(kSequences, steered);
    const uint64_t before = Counters().allocations;
    ASSERT_GT(before, 0u);
    for (int32_t step = 0; step < 4; ++step) {
      for (const bool steered : {true, false}) decoder.Decode(1 + step * 3, steered);
    }
    EXPECT_EQ(Counters().allocations, before) << (graphs ? "with" : "without") << " graphs";
  }
}

TEST(Graphs, KernelsOverlapUnlessTheyAreToldNotToAndGiveTheSameBits) {
  const LlamaConfig config = Config(32);
  TinyCheckpoint checkpoint(config);
  const auto outcomes = [&](const char* overlap) {
    setenv("LLAMA_STEER_CUDA_PDL", overlap, 1);
    Decoder decoder(config, checkpoint, true);
    unsetenv("LLAMA_STEER_CUDA_PDL");
    std::vector<Outcome> each;
    for (int32_t step = 0; step < 4; ++step) each.push_back(decoder.Decode(3, true));
    return each;
  };
  const uint64_t start = Counters().overlapping;
  const auto apart = outcomes("off");
  EXPECT_EQ(Counters().overlapping, start);
  EXPECT_EQ(outcomes("on"), apart);
  EXPECT_GT(Counters().overlapping, start);
}

TEST(Graphs, AStepOfFewRowsIsEightLaunchesALayer) {
  // q, k and v; attention and its merge; o; norm; gate and up; down; norm.
  const auto launches = [](int32_t layers, int32_t rows) {
    LlamaConfig config = Config(32);
    config.layers = layers;
    TinyCheckpoint checkpoint(config);
    Decoder decoder(config, checkpoint, false);
    for (int32_t sequence = 0; sequence < rows; ++sequence) decoder.Prefill(sequence, 3);
    const uint64_t before = Counters().kernels;
    decoder.Decode(rows, false);
    return Counters().kernels - before;
  };
  for (const int32_t rows : {1, kSequences}) EXPECT_EQ(launches(4, rows), launches(3, rows) + 8);
}
#endif

}  // namespace
}  // namespace llama_steer
