// Speed of the CPU kernels next to what the machine can do.
//   out/<build>/bench/native/bench_kernels --benchmark_filter=Linear
// Every figure is on as many threads as its name says. GB/s counts bytes of weights (or of keys and
// values), GFLOP/s two operations a multiply-add. Pin the instruction set with LLAMA_STEER_ISA.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "machine_limits.h"
#include "support/float_types.h"
#include "support/thread_pool.h"

#if HWY_ONCE
namespace llama_steer::bench {
namespace {

std::unique_ptr<Backend> Make(int64_t threads) {
  const char* isa = std::getenv("LLAMA_STEER_ISA");
  auto backend = CreateCpuBackend({static_cast<int32_t>(threads), isa == nullptr ? "auto" : isa});
  if (!backend.ok()) std::abort();
  return std::move(backend).value();
}

std::vector<float> RandomFloats(size_t count) {
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(generator);
  return values;
}

Activations Random(Backend& backend, int64_t rows, int64_t cols) {
  const Activations x = backend.AllocateActivations(rows, cols).value();
  const auto values = RandomFloats(static_cast<size_t>(rows * cols));
  std::memcpy(x.data, values.data(), values.size() * sizeof(float));
  return x;
}

void SetRate(benchmark::State& state, const char* name, double units_an_iteration) {
  state.counters[name] =
      benchmark::Counter(units_an_iteration * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

// -- limits --

void ReadBandwidth(benchmark::State& state) {
  ThreadPool pool(static_cast<int32_t>(state.range(0)));
  const std::vector<float> values(size_t{64} << 20, 1.0f);  // 256 MiB
  const size_t part = values.size() / static_cast<size_t>(pool.threads());
  for (auto _ : state) {
    pool.Run([&](int32_t worker) {
      const float* first = values.data() + part * static_cast<size_t>(worker);
      benchmark::DoNotOptimize(HWY_DYNAMIC_DISPATCH(ReadAll)(first, part));
    });
  }
  SetRate(state, "GB/s", static_cast<double>(values.size() * sizeof(float)));
}
BENCHMARK(ReadBandwidth)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();

void FmaPeak(benchmark::State& state) {
  ThreadPool pool(static_cast<int32_t>(state.range(0)));
  double operations = 0.0;
  for (auto _ : state) {
    pool.Run([&](int32_t worker) {
      float sink = 1e-20f;
      const double done = HWY_DYNAMIC_DISPATCH(MultiplyAdds)(1 << 20, &sink);
      benchmark::DoNotOptimize(sink);
      if (worker == 0) operations = done;
    });
  }
  SetRate(state, "GFLOP/s", operations * static_cast<double>(pool.threads()));
}
BENCHMARK(FmaPeak)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();

// -- kernels --

/// Several weights in turn, so that together they exceed every cache, as the layers of a model do.
void Linear(benchmark::State& state) {
  const int64_t threads = state.range(0);
  const int64_t rows = state.range(1);
  const int64_t outputs = state.range(2);
  const int64_t inputs = state.range(3);
  const bool int8 = state.range(4) != 0;
  const auto backend = Make(threads);
  const auto count = static_cast<size_t>(outputs * inputs);
  std::vector<uint16_t> stored(count);
  const auto values = RandomFloats(count);
  for (size_t i = 0; i < count; ++i) stored[i] = Bf16FromFloat(values[i]);
  const size_t copies = rows > 32 ? 1 : std::max<size_t>(1, (size_t{128} << 20) / (count * 2));
  std::vector<std::vector<uint16_t>> bytes(copies, stored);
  std::vector<std::unique_ptr<Weight>> weights;
  for (const auto& copy : bytes) {
    const TensorView view{"w", copy.data(), DType::kBF16, outputs, inputs};
    const auto format = int8 ? WeightFormat::kInt8 : WeightFormat::kAsStored;
    weights.push_back(backend->LoadWeight(view, format).value());
  }
  const Activations x = Random(*backend, rows, inputs);
  const Activations y = Random(*backend, rows, outputs);
  size_t next = 0;
  for (auto _ : state) {
    const LinearTarget target[] = {{weights[next++ % copies].get(), nullptr, y}};
    if (!backend->Linear(x, rows, target).ok()) std::abort();
  }
  const double weight_bytes = static_cast<double>(count) * (int8 ? 1.0 + 2.0 / 32.0 : 2.0);
  SetRate(state, "GB/s", weight_bytes);
  SetRate(state, "GFLOP/s", 2.0 * static_cast<double>(count) * static_cast<double>(rows));
}
void LinearShapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"threads", "rows", "outputs", "inputs", "int8"});
  for (const int64_t threads : {1, 2}) {
    for (const int64_t int8 : {0, 1}) {
      for (const int64_t rows : {1, 8, 16, 256}) {
        bench->Args({threads, rows, 1536, 576, int8});
        bench->Args({threads, rows, 576, 1536, int8});
        bench->Args({threads, rows, 4096, 4096, int8});
      }
    }
  }
}
BENCHMARK(Linear)->Apply(LinearShapes)->UseRealTime();

/// A LoRA term of rank 16 beside a projection; to be compared with Linear of the same shape.
void AddLora(benchmark::State& state) {
  const int64_t threads = state.range(0);
  const int64_t rows = state.range(1);
  const int64_t outputs = state.range(2);
  const int64_t inputs = state.range(3);
  constexpr int64_t kRank = 16;
  const auto backend = Make(threads);
  const auto factor = [](int64_t count) {
    std::vector<uint16_t> stored;
    for (const float value : RandomFloats(static_cast<size_t>(count))) {
      stored.push_back(Bf16FromFloat(value));
    }
    return stored;
  };
  const std::vector<uint16_t> a = factor(kRank * inputs);
  const std::vector<uint16_t> b = factor(outputs * kRank);
  const auto weight = backend
                          ->LoadLora({"a", a.data(), DType::kBF16, kRank, inputs},
                                     {"b", b.data(), DType::kBF16, outputs, kRank}, 1.0f)
                          .value();
  const Activations x = Random(*backend, rows, inputs);
  const Activations y = Random(*backend, rows, outputs);
  for (auto _ : state) {
    const LoraTerm term[] = {{weight.get(), 0, static_cast<int32_t>(rows), y}};
    if (!backend->AddLora(x, term).ok()) std::abort();
  }
  const auto count = static_cast<double>(kRank * (inputs + outputs));
  SetRate(state, "GFLOP/s", 2.0 * count * static_cast<double>(rows));
}
void LoraShapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"threads", "rows", "outputs", "inputs"});
  for (const int64_t threads : {1, 2}) {
    for (const int64_t rows : {1, 8, 16, 256}) {
      bench->Args({threads, rows, 1536, 576});
      bench->Args({threads, rows, 576, 1536});
      bench->Args({threads, rows, 4096, 4096});
    }
  }
}
BENCHMARK(AddLora)->Apply(LoraShapes)->UseRealTime();

/// `context` tokens before the `rows` queries of one sequence.
void Attention(benchmark::State& state) {
  const auto backend = Make(state.range(0));
  const auto rows = static_cast<int32_t>(state.range(1));
  const auto context = static_cast<int32_t>(state.range(2));
  constexpr int32_t kQueryHeads = 9, kKvHeads = 3, kSize = 64;
  const int32_t tokens = context + rows;
  const int32_t blocks = (tokens + 15) / 16;
  auto cache = backend->AllocateKvCache({1, blocks, 16, kKvHeads, kSize, DType::kBF16}).value();
  std::vector<int32_t> table;
  std::vector<int32_t> positions;
  for (int32_t i = 0; i < blocks; ++i) table.push_back(i);
  for (int32_t i = 0; i < tokens; ++i) positions.push_back(i);
  const SequenceSpan all[] = {{0, tokens, 0, 0}};
  const SequenceSpan last[] = {{0, rows, context, 0}};
  const RopeTable rope{std::vector<float>(kSize / 2, 0.01f)};
  const Activations q = Random(*backend, tokens, kQueryHeads * kSize);
  if (!backend
           ->RopeAppendKv(rope, {positions, positions, all, table}, 0, q,
                          Random(*backend, tokens, kKvHeads * kSize),
                          Random(*backend, tokens, kKvHeads * kSize), *cache)
           .ok()) {
    std::abort();
  }
  const Activations out = Random(*backend, rows, kQueryHeads * kSize);
  const auto fresh = std::span(positions).subspan(static_cast<size_t>(context));
  for (auto _ : state) {
    if (!backend->Attention({fresh, fresh, last, table}, 0, q, *cache, out).ok()) std::abort();
  }
  const double pairs = static_cast<double>(rows) * (context + 0.5 * (rows + 1));
  SetRate(state, "GFLOP/s", 4.0 * pairs * kQueryHeads * kSize);
  SetRate(state, "GB/s", 4.0 * static_cast<double>(tokens) * kKvHeads * kSize);
}
BENCHMARK(Attention)
    ->ArgNames({"threads", "rows", "context"})
    ->Args({1, 1, 512})
    ->Args({1, 1, 8192})
    ->Args({2, 1, 8192})
    ->Args({1, 256, 0})
    ->Args({1, 256, 2048})
    ->UseRealTime();

/// The fused kernel; every row with `ops` operations.
void ResidualNorm(benchmark::State& state) {
  const auto backend = Make(1);
  const int64_t rows = state.range(0);
  const int64_t d = state.range(1);
  const auto op_count = static_cast<int32_t>(state.range(2));
  const std::vector<uint16_t> ones(static_cast<size_t>(d), Bf16FromFloat(1.0f));
  const auto weight =
      backend->LoadWeight({"norm", ones.data(), DType::kBF16, 1, d}, WeightFormat::kAsStored)
          .value();
  SteerOp op;
  op.kind = SteerKind::kProjectOut;
  op.vector_row = backend->PutVectorRow(RandomFloats(static_cast<size_t>(d))).value();
  op.position_end = 1 << 30;
  const std::vector<SteerOp> ops(static_cast<size_t>(op_count), op);
  const std::vector<int32_t> slots(static_cast<size_t>(rows), 1);
  const std::vector<SteerOpRange> ranges = {{0, 0}, {0, op_count}};
  std::vector<SteerProof> proof(static_cast<size_t>(rows));
  const SteerTables steering{slots, ranges, 2, ops, proof.data(), 1};
  const Activations delta = Random(*backend, rows, d);
  ResidualSteerNorm args;
  args.sublayer = Sublayer::kMlp;
  args.residual = Random(*backend, rows, d);
  args.delta = &delta;
  args.norm_weight = weight.get();
  args.normed = Random(*backend, rows, d);
  args.steering = op_count > 0 ? &steering : nullptr;
  const std::vector<int32_t> positions(static_cast<size_t>(rows), 0);
  const StepTables step{positions, positions, {}, {}};
  for (auto _ : state) {
    if (!backend->ApplyResidualSteerNorm(args, step).ok()) std::abort();
  }
}
BENCHMARK(ResidualNorm)
    ->ArgNames({"rows", "width", "ops"})
    ->Args({1, 576, 0})
    ->Args({1, 576, 1})
    ->Args({1, 4096, 0})
    ->Args({1, 4096, 1})
    ->Args({64, 576, 0})
    ->Args({64, 576, 1});

void SiluMul(benchmark::State& state) {
  const auto backend = Make(1);
  const Activations gate = Random(*backend, state.range(0), 1536);
  const Activations up = Random(*backend, state.range(0), 1536);
  for (auto _ : state) {
    if (!backend->SiluMul(state.range(0), gate, up).ok()) std::abort();
  }
}
BENCHMARK(SiluMul)->ArgName("rows")->Arg(1)->Arg(256);

/// One row of a vocabulary of 128,256.
void Sample(benchmark::State& state) {
  const auto backend = Make(1);
  const Activations logits = Random(*backend, 1, 128256);
  auto* values = static_cast<float*>(logits.data);
  for (int64_t i = 0; i < logits.cols; ++i) values[i] *= 12.0f;
  SampleRow row;
  row.temperature = state.range(0) == 0 ? 0.0f : 0.8f;
  row.top_k = static_cast<uint32_t>(state.range(1));
  row.top_p = static_cast<float>(state.range(2)) * 0.01f;
  row.logprob = state.range(3) != 0;
  row.top_logprobs = state.range(3) != 0 ? 20 : 0;
  SampleResult result;
  for (auto _ : state) {
    ++row.position;
    if (!backend->Sample(logits, {&row, 1}, {&result, 1}).ok()) std::abort();
  }
}
BENCHMARK(Sample)
    ->ArgNames({"draw", "top_k", "top_p%", "logprobs"})
    ->Args({0, 0, 100, 0})
    ->Args({1, 0, 100, 0})
    ->Args({1, 0, 95, 0})
    ->Args({1, 50, 95, 0})
    ->Args({0, 0, 100, 1});

}  // namespace
}  // namespace llama_steer::bench

BENCHMARK_MAIN();
#endif
