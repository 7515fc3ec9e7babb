// The CPU backend behind the device seam, with faults at the end of a step. The file named by
// LLAMA_STEER_TEST_FAULT says which: "hang" (until it says something else), "fail", or nothing.
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#include "backend/backend.h"
#include "backend/loader.h"

namespace llama_steer {
namespace {

constexpr std::chrono::milliseconds kPollInterval(1);

std::string FaultAsked() {
  const char* path = std::getenv("LLAMA_STEER_TEST_FAULT");
  std::string fault;
  if (path != nullptr) std::ifstream(path) >> fault;
  return fault;
}

class FaultyDevice final : public Backend {
 public:
  explicit FaultyDevice(std::unique_ptr<Backend> cpu) : cpu_(std::move(cpu)) {}

  const DeviceInfo& info() const override { return cpu_->info(); }
  StatusOr<uint64_t> KvCacheBudgetBytes() const override { return cpu_->KvCacheBudgetBytes(); }
  StatusOr<Activations> AllocateActivations(int64_t rows, int64_t cols) override {
    return cpu_->AllocateActivations(rows, cols);
  }
  StatusOr<std::unique_ptr<Weight>> LoadWeight(const TensorView& view,
                                               WeightFormat format) override {
    return cpu_->LoadWeight(view, format);
  }
  StatusOr<std::unique_ptr<LoraWeight>> LoadLora(const TensorView& a, const TensorView& b,
                                                 float scale) override {
    return cpu_->LoadLora(a, b, scale);
  }
  StatusOr<std::unique_ptr<KvCache>> AllocateKvCache(const KvCacheShape& shape) override {
    return cpu_->AllocateKvCache(shape);
  }
  StatusOr<int32_t> PutVectorRow(std::span<const float> row) override {
    return cpu_->PutVectorRow(row);
  }
  void DropVectorRow(int32_t row) override { cpu_->DropVectorRow(row); }

  Status Embed(const Weight& table, const StepTables& step, Activations residual) override {
    return cpu_->Embed(table, step, residual);
  }
  Status Linear(Activations x, int64_t rows, std::span<const LinearTarget> targets) override {
    return cpu_->Linear(x, rows, targets);
  }
  Status AddLora(Activations x, std::span<const LoraTerm> terms) override {
    return cpu_->AddLora(x, terms);
  }
  Status RopeAppendKv(const RopeTable& rope, const StepTables& step, int32_t layer, Activations q,
                      Activations k, Activations v, KvCache& cache) override {
    return cpu_->RopeAppendKv(rope, step, layer, q, k, v, cache);
  }
  Status Attention(const StepTables& step, int32_t layer, Activations q, const KvCache& cache,
                   Activations output) override {
    return cpu_->Attention(step, layer, q, cache, output);
  }
  Status ApplyResidualSteerNorm(const ResidualSteerNorm& args, const StepTables& step) override {
    return cpu_->ApplyResidualSteerNorm(args, step);
  }
  Status SiluMul(int64_t rows, Activations gate, Activations up) override {
    return cpu_->SiluMul(rows, gate, up);
  }
  Status GatherRows(Activations x, std::span<const int32_t> rows, Activations output) override {
    return cpu_->GatherRows(x, rows, output);
  }
  Status UploadRows(std::span<const float* const> rows, Activations to) override {
    return cpu_->UploadRows(rows, to);
  }
  Status Sample(Activations logits, std::span<const SampleRow> rows,
                std::span<SampleResult> results) override {
    return cpu_->Sample(logits, rows, results);
  }
  Status CopyKvBlocks(std::span<const BlockCopy> copies, KvCache& cache) override {
    return cpu_->CopyKvBlocks(copies, cache);
  }
  Status Upload(std::span<const float> values, Activations x) override {
    return cpu_->Upload(values, x);
  }
  Status Download(Activations x, int64_t rows, std::span<float> out) override {
    return cpu_->Download(x, rows, out);
  }
  Status Sync() override {
    std::string fault = FaultAsked();
    for (; fault == "hang"; fault = FaultAsked()) std::this_thread::sleep_for(kPollInterval);
    if (fault == "fail") return Status::Internal("the faulty device failed on command");
    return cpu_->Sync();
  }

 private:
  std::unique_ptr<Backend> cpu_;
};

int32_t Score() { return 1; }

Backend* Create(int32_t /*device*/, const char** error) {
  StatusOr<std::unique_ptr<Backend>> cpu = CreateCpuBackend({});
  if (cpu.ok()) return new FaultyDevice(std::move(cpu).value());
  *error = "the faulty device has no CPU backend";
  return nullptr;
}

}  // namespace
}  // namespace llama_steer

extern "C" {
__attribute__((
    visibility("default"))) extern const llama_steer::BackendPlugin llama_steer_backend_plugin;
const llama_steer::BackendPlugin llama_steer_backend_plugin = {
    llama_steer::kBackendApiVersion, &llama_steer::Score, &llama_steer::Create};
}
