// The engine alone, without Node: random weights of a public shape, whole batches, JSON lines.
//   bench_engine --shape llama-3.2-1b [--device cpu|cuda] [--format bf16|int8|fp8] [--threads 2]
//                [--isa auto] [--kv-mib N] [--batch-tokens 512] [--prefix-cache] [--random]
//                [--orders]
// Weights are always random; --random says so on the command line. Without --kv-mib a GPU gives
// what is free. Without --orders it runs a suite of its own. With it, each line of standard input
// is an order,
//   decode streams=8 context=128 tokens=32 steering=none|one-layer|all-layers|distinct
//   prompts=new|same prefill tokens=512 capture tokens=512 dtype=f32|bf16
// answered by one line of JSON: what bench/peer/compare.mjs and bench/cuda/engine.py drive.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <utility>

#include "harness/engine_driver.h"
#include "harness/random_checkpoint.h"
#include "harness/shapes.h"

namespace llama_steer::bench {
namespace {

constexpr uint64_t kKvCacheBytes = 1ull << 30;

struct Arguments {
  std::string shape = "llama-3.2-1b";
  std::string device = "cpu";
  std::string format = "bf16";
  std::string isa = "auto";
  int32_t threads = 0;
  int32_t kv_mib = 0;
  int32_t batch_tokens = 0;  // 0: the engine's default
  bool prefix_cache = false;
  bool orders = false;
};

int Usage() {
  std::fprintf(stderr,
               "usage: bench_engine [--shape NAME] [--device cpu|cuda|cuda:N] [--format "
               "bf16|int8|fp8] [--threads N] [--isa NAME] [--kv-mib N] [--batch-tokens N] "
               "[--prefix-cache] [--random] [--orders]\nshapes: %s\n",
               kShapeNames);
  return 2;
}

bool ReadArguments(int argc, char** argv, Arguments& to) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--orders") {
      to.orders = true;
      continue;
    }
    if (name == "--prefix-cache") {
      to.prefix_cache = true;
      continue;
    }
    if (name == "--random") continue;
    if (i + 1 == argc) return false;
    const std::string value = argv[++i];
    if (name == "--shape") {
      to.shape = value;
    } else if (name == "--device") {
      to.device = value;
    } else if (name == "--format") {
      to.format = value;
    } else if (name == "--isa") {
      to.isa = value;
    } else if (name == "--threads") {
      to.threads = std::atoi(value.c_str());
    } else if (name == "--kv-mib") {
      to.kv_mib = std::atoi(value.c_str());
    } else if (name == "--batch-tokens") {
      to.batch_tokens = std::atoi(value.c_str());
    } else {
      return false;
    }
  }
  return to.format == "bf16" || to.format == "int8" || to.format == "fp8";
}

/// An operation and its key=value words.
struct Order {
  std::string op;
  std::map<std::string, std::string> words;

  std::string Word(const std::string& key, const char* fallback) const {
    const auto found = words.find(key);
    return found == words.end() ? fallback : found->second;
  }
  int32_t Number(const std::string& key, int32_t fallback) const {
    const auto found = words.find(key);
    return found == words.end() ? fallback : std::atoi(found->second.c_str());
  }
};

Order ParseOrder(const std::string& line) {
  Order order;
  std::istringstream words(line);
  words >> order.op;
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    if (equals != std::string::npos) order.words[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return order;
}

StatusOr<BenchSteering> SteeringOf(const Order& order) {
  const std::string name = order.Word("steering", "none");
  if (name == "none") return BenchSteering::kNone;
  if (name == "one-layer") return BenchSteering::kOneLayer;
  if (name == "all-layers") return BenchSteering::kAllLayers;
  if (name == "distinct") return BenchSteering::kDistinct;
  return Status::InvalidArgument("no such steering: " + name);
}

StatusOr<Timed> Carry(EngineDriver& driver, const Order& order) {
  if (order.op == "prefill") return driver.Prefill(order.Number("tokens", 512));
  if (order.op == "capture") {
    const bool bf16 = order.Word("dtype", "f32") == "bf16";
    return driver.Capture(order.Number("tokens", 512), bf16 ? DType::kBF16 : DType::kF32);
  }
  if (order.op != "decode") return Status::InvalidArgument("no such order: " + order.op);
  const StatusOr<BenchSteering> steering = SteeringOf(order);
  if (!steering.ok()) return steering.status();
  return driver.Decode({.streams = order.Number("streams", 1),
                        .context = order.Number("context", 128),
                        .tokens = order.Number("tokens", 32),
                        .steering = steering.value(),
                        .same_prompts = order.Word("prompts", "new") == "same"});
}

void Print(const std::string& line, const StatusOr<Timed>& timed) {
  if (!timed.ok()) {
    std::printf("{\"order\": \"%s\", \"error\": \"%s\"}\n", line.c_str(),
                timed.status().message().c_str());
  } else {
    const Timed& value = timed.value();
    std::printf(
        "{\"order\": \"%s\", \"tokens\": %lld, \"seconds\": %.6f, \"tokens_per_s\": %.2f, "
        "\"bytes\": %llu}\n",
        line.c_str(), static_cast<long long>(value.tokens), value.seconds,
        static_cast<double>(value.tokens) / value.seconds,
        static_cast<unsigned long long>(value.bytes));
  }
  std::fflush(stdout);
}

/// What a person runs: one line a case, each three times.
constexpr const char* kSuite[] = {
    "prefill tokens=512",
    "decode streams=1 context=128 tokens=32 steering=none",
    "decode streams=1 context=128 tokens=32 steering=one-layer",
    "decode streams=1 context=128 tokens=32 steering=all-layers",
    "decode streams=8 context=128 tokens=32 steering=none",
    "decode streams=8 context=128 tokens=32 steering=distinct",
    "decode streams=16 context=128 tokens=32 steering=none",
};
/// The same for a GPU: the rows of the limits table of bench/cuda.md.
constexpr const char* kGpuSuite[] = {
    "prefill tokens=2048",
    "prefill tokens=8192",
    "prefill tokens=512",
    "capture tokens=512 dtype=f32",
    "decode streams=1 context=128 tokens=64 steering=none",
    "decode streams=1 context=128 tokens=64 steering=one-layer",
    "decode streams=1 context=128 tokens=64 steering=all-layers",
    "decode streams=8 context=128 tokens=64 steering=none",
    "decode streams=64 context=1024 tokens=64 steering=none",
    "decode streams=64 context=1024 tokens=64 steering=distinct",
};
constexpr int kSuiteRounds = 3;

void RunSuite(EngineDriver& driver, std::span<const char* const> suite) {
  for (int round = 0; round < kSuiteRounds; ++round) {
    for (const char* line : suite) Print(line, Carry(driver, ParseOrder(line)));
  }
}

void RunOrders(EngineDriver& driver) {
  for (std::string line; std::getline(std::cin, line);) {
    if (!line.empty()) Print(line, Carry(driver, ParseOrder(line)));
  }
}

int Main(int argc, char** argv) {
  Arguments arguments;
  if (!ReadArguments(argc, argv, arguments)) return Usage();
  const std::optional<LlamaConfig> config = ShapeByName(arguments.shape);
  if (!config) return Usage();
  StatusOr<CheckpointFiles> checkpoint = MakeRandomCheckpoint(*config, arguments.device != "cpu");
  if (!checkpoint.ok()) {
    std::fprintf(stderr, "%s\n", checkpoint.status().message().c_str());
    return 1;
  }
  EngineOptions options;
  options.config = *config;
  options.checkpoint = std::move(checkpoint).value();
  options.device = arguments.device;
  options.cpu_isa = arguments.isa;
  options.weight_format = arguments.format == "int8"  ? WeightFormat::kInt8
                          : arguments.format == "fp8" ? WeightFormat::kFp8
                                                      : WeightFormat::kAsStored;
  options.threads = arguments.threads;
  options.kv_cache_bytes = arguments.device == "cpu" ? kKvCacheBytes : 0;  // 0: what is free
  if (arguments.kv_mib > 0) options.kv_cache_bytes = static_cast<uint64_t>(arguments.kv_mib) << 20;
  if (arguments.batch_tokens > 0) options.max_batch_tokens = arguments.batch_tokens;
  options.prefix_cache = arguments.prefix_cache;
  StatusOr<std::unique_ptr<EngineDriver>> driver = EngineDriver::Open(std::move(options));
  if (!driver.ok()) {
    std::fprintf(stderr, "%s\n", driver.status().message().c_str());
    return 1;
  }
  const ReadyEvent& ready = driver.value()->ready();
  std::printf(
      "{\"shape\": \"%s\", \"device\": \"%s\", \"isa\": \"%s\", \"threads\": %d, \"weights\": "
      "\"%s\", \"weight_bytes\": %llu, \"kv_blocks\": %d}\n",
      arguments.shape.c_str(), ready.device.name.c_str(), ready.device.isa.c_str(),
      ready.device.threads, ready.weight_dtype.c_str(),
      static_cast<unsigned long long>(ready.weight_bytes), ready.kv_blocks);
  std::fflush(stdout);
  if (arguments.orders) {
    RunOrders(*driver.value());
  } else if (arguments.device == "cpu") {
    RunSuite(*driver.value(), kSuite);
  } else {
    RunSuite(*driver.value(), kGpuSuite);
  }
  return 0;
}

}  // namespace
}  // namespace llama_steer::bench

int main(int argc, char** argv) { return llama_steer::bench::Main(argc, argv); }
