// Speed of the CUDA kernels beside what the GPU can do at most.
//   bench_cuda_kernels [--shape llama-3.1-8b|tiny] [--filter TEXT] [--milliseconds 60]
//                      [--dense-tflops X] [--json FILE] [--list]
// The share is of the time that the measured copy bandwidth and the bf16 limit leave for the bytes
// and operations of the case. The limit is --dense-tflops, as bench/cuda/reference.py measures it,
// else that of mma.sync. --milliseconds 0 runs every case once: with --shape tiny for checkers.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cuda/measure.h"
#include "switches.h"

namespace llama_steer::cuda::bench {
namespace {

struct Arguments {
  std::string shape = "llama-3.1-8b";
  std::string filter;
  std::string json;
  double dense_tflops = 0.0;
  MeasureOptions measure;
  bool list = false;
};

int Usage() {
  std::fprintf(stderr,
               "usage: bench_cuda_kernels [--shape NAME] [--filter TEXT] [--milliseconds N] "
               "[--dense-tflops X] [--json FILE] [--list]\nshapes: %s\n",
               kBenchShapeNames);
  return 2;
}

bool ReadArguments(int argc, char** argv, Arguments& to) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--list") {
      to.list = true;
      continue;
    }
    if (i + 1 == argc) return false;
    const std::string value = argv[++i];
    if (name == "--shape") {
      to.shape = value;
    } else if (name == "--filter") {
      to.filter = value;
    } else if (name == "--json") {
      to.json = value;
    } else if (name == "--milliseconds") {
      to.measure.milliseconds = std::atof(value.c_str());
    } else if (name == "--dense-tflops") {
      to.dense_tflops = std::atof(value.c_str());
    } else {
      return false;
    }
  }
  return true;
}

bool WriteJson(const Arguments& arguments, const Gpu& gpu, const Limits& limits,
               const std::vector<Measured>& all) {
  std::FILE* file = std::fopen(arguments.json.c_str(), "w");
  if (file == nullptr) return false;
  std::fprintf(file,
               "{\"gpu\": \"%s\", \"multiprocessors\": %d, \"l2_bytes\": %lld, \"shape\": \"%s\", "
               "\"overlap\": %s,\n"
               " \"limits\": {\"copy_gbps\": %.1f, \"mma_tflops\": %.2f, \"dense_tflops\": %.2f},\n"
               " \"cases\": [",
               gpu.name.c_str(), gpu.multiprocessors, static_cast<long long>(gpu.l2_bytes),
               arguments.shape.c_str(), OverlapSwitch() ? "true" : "false", limits.copy_gbps,
               limits.mma_tflops, limits.dense_tflops);
  const char* separator = "\n";
  for (const Measured& one : all) {
    std::fprintf(file,
                 "%s  {\"kernel\": \"%s\", \"variant\": \"%s\", \"us\": %.3f, \"least_us\": %.3f, "
                 "\"bytes\": %.0f, \"flop\": %.0f, \"gbps\": %.2f, \"tflops\": %.3f, \"share\": "
                 "%.4f, \"turns\": %d, \"samples\": %d, \"launches\": %d}",
                 separator, one.kernel.c_str(), one.variant.c_str(), one.timing.median_us,
                 one.timing.least_us, one.bytes, one.flop, one.gbps(), one.tflops(),
                 one.share(limits), one.turns, one.timing.samples, one.timing.launches);
    separator = ",\n";
  }
  std::fprintf(file, "\n ]}\n");
  return std::fclose(file) == 0;
}

void Print(const Measured& one, const Limits& limits) {
  std::printf("%-22s %-36s %10.2f us %9.1f GB/s %8.2f TFLOP/s %6.1f%%\n", one.kernel.c_str(),
              one.variant.c_str(), one.timing.median_us, one.gbps(), one.tflops(),
              100.0 * one.share(limits));
  std::fflush(stdout);
}

int Fail(const Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  return 1;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  if (!ReadArguments(argc, argv, arguments)) return Usage();
  const std::optional<BenchShape> shape = BenchShapeByName(arguments.shape);
  if (!shape) return Usage();
  std::vector<Case> cases;
  for (Case& one : AllCases(*shape)) {
    const std::string name = one.kernel + " " + one.variant;
    if (name.find(arguments.filter) != std::string::npos) cases.push_back(std::move(one));
  }
  if (arguments.list) {
    for (const Case& one : cases) std::printf("%s %s\n", one.kernel.c_str(), one.variant.c_str());
    return 0;
  }
  OverlapSwitch() = IsSwitchedOn(kOverlapVariable);
  StatusOr<std::unique_ptr<Meter>> meter = Meter::Open(arguments.measure);
  if (!meter.ok()) return Fail(meter.status());
  StatusOr<Limits> limits = (*meter)->MeasureLimits(*shape);
  if (!limits.ok()) return Fail(limits.status());
  limits.value().dense_tflops = arguments.dense_tflops;
  std::printf("%s, shape %s: copy %.0f GB/s, mma.sync %.1f TFLOP/s, dense %.1f TFLOP/s\n",
              (*meter)->gpu().name.c_str(), arguments.shape.c_str(), limits->copy_gbps,
              limits->mma_tflops, limits->dense_tflops);
  std::vector<Measured> all;
  for (const Case& one : cases) {
    StatusOr<Measured> measured = (*meter)->Measure(one);
    if (!measured.ok()) {
      std::fprintf(stderr, "%s %s: ", one.kernel.c_str(), one.variant.c_str());
      return Fail(measured.status());
    }
    Print(*measured, *limits);
    all.push_back(std::move(measured).value());
  }
  if (!arguments.json.empty() && !WriteJson(arguments, (*meter)->gpu(), *limits, all)) {
    std::fprintf(stderr, "cannot write %s\n", arguments.json.c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace llama_steer::cuda::bench

int main(int argc, char** argv) { return llama_steer::cuda::bench::Main(argc, argv); }
