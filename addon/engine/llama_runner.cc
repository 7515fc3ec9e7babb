#include "engine/llama_runner.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "backend/loader.h"
#include "engine/core.h"
#include "model/llama.h"

namespace llama_steer {
namespace {

uint64_t BlockBytes(const KvCacheShape& shape) {
  return 2ull * static_cast<uint64_t>(shape.layers) * static_cast<uint64_t>(shape.block_tokens) *
         static_cast<uint64_t>(shape.kv_heads) * static_cast<uint64_t>(shape.head_size) *
         DTypeBytes(shape.dtype);
}

class LlamaRunner final : public ModelRunner {
 public:
  LlamaRunner(std::unique_ptr<Backend> backend, std::unique_ptr<LlamaModel> model,
              std::unique_ptr<KvCache> cache, std::string device_fallback)
      : backend_(std::move(backend)), model_(std::move(model)), cache_(std::move(cache)) {
    info_.device = backend_->info();
    info_.device_fallback = std::move(device_fallback);
    info_.weight_dtype = model_->weight_dtype();
    info_.weight_bytes = model_->weight_bytes();
    info_.kv = cache_->shape;
    info_.kv_bytes = BlockBytes(cache_->shape) * static_cast<uint64_t>(cache_->shape.blocks);
  }

  const ModelInfo& info() const override { return info_; }
  StatusOr<int32_t> PutVectorRow(std::span<const float> row) override {
    return backend_->PutVectorRow(row);
  }
  void DropVectorRow(int32_t row) override { backend_->DropVectorRow(row); }
  StatusOr<int32_t> PutAdapter(const MappedLora& lora) override { return model_->PutAdapter(lora); }
  void DropAdapter(int32_t adapter) override { model_->DropAdapter(adapter); }
  Status Forward(const ForwardStep& step) override {
    const LlamaStep llama_step{.tables = step.tables,
                               .logit_rows = step.logit_rows,
                               .steering = step.steering,
                               .capture = step.capture,
                               .adapters = step.adapters,
                               .probes = step.probes};
    return model_->Forward(llama_step, *cache_);
  }
  Status Unembed(std::span<const float* const> rows, bool normalise) override {
    return model_->Unembed(rows, normalise);
  }
  Status Sample(std::span<const SampleRow> rows, std::span<SampleResult> results) override {
    return backend_->Sample(model_->logits(), rows, results);
  }
  bool runs_ahead() const override { return backend_->RunsAhead(); }
  Status BeginSample(std::span<const SampleRow> rows) override {
    return backend_->BeginSample(model_->logits(), rows);
  }
  Status AwaitStep(std::span<const SampleRow> rows, std::span<SampleResult> results) override {
    return backend_->AwaitStep(rows, results);
  }
  Status CopyKvBlocks(std::span<const BlockCopy> copies) override {
    return backend_->CopyKvBlocks(copies, *cache_);
  }
  Status Sync() override { return backend_->Sync(); }

 private:
  // In this order: the model and the cache use the backend until their end.
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LlamaModel> model_;
  std::unique_ptr<KvCache> cache_;
  ModelInfo info_;
};

}  // namespace

StatusOr<KvCacheShape> KvShapeOf(const EngineOptions& options, uint64_t budget_bytes) {
  const LlamaConfig& config = options.config;
  KvCacheShape shape{.layers = config.layers,
                     .blocks = 0,
                     .block_tokens = kKvBlockTokens,
                     .kv_heads = config.kv_heads,
                     .head_size = config.head_size,
                     .dtype = options.kv_dtype};
  if (shape.dtype != DType::kBF16 && shape.dtype != DType::kF32) {
    return Status::InvalidArgument("the KV cache is held in bf16 or f32");
  }
  const uint64_t block_bytes = BlockBytes(shape);
  if (block_bytes == 0) return Status::InvalidArgument("the model has no keys and values");
  uint64_t blocks = options.kv_cache_bytes / block_bytes;
  if (options.kv_cache_bytes == 0) {
    const auto context = static_cast<uint64_t>(std::max(config.context_tokens, 1));
    const uint64_t full_contexts =
        static_cast<uint64_t>(std::max(options.max_running_sequences, 1)) *
        ((context + kKvBlockTokens - 1) / kKvBlockTokens);
    const uint64_t room = budget_bytes == 0 ? kDefaultKvCacheBytes : budget_bytes;
    blocks = std::min(room / block_bytes, full_contexts);
  }
  if (blocks == 0) {
    return Status::InvalidArgument("kv_cache_bytes is " + std::to_string(options.kv_cache_bytes) +
                                   ", one block of " + std::to_string(kKvBlockTokens) +
                                   " tokens takes " + std::to_string(block_bytes));
  }
  // Block numbers and positions are 32 bits wide.
  shape.blocks = static_cast<int32_t>(std::min<uint64_t>(blocks, INT32_MAX / kKvBlockTokens));
  return shape;
}

StatusOr<std::unique_ptr<ModelRunner>> MakeLlamaRunner(const EngineOptions& options,
                                                       const RunnerProgress& progress) {
  // Before the sizes are multiplied.
  LLAMA_STEER_RETURN_IF_ERROR(CheckLlamaConfig(options.config));
  // Options that cannot be met are found before the weights are read.
  StatusOr<KvCacheShape> shape = KvShapeOf(options, 0);
  if (!shape.ok()) return shape.status();
  std::string why_cpu;
  auto backend = CreateBackend(options.device, options.cpu_isa, options.threads, &why_cpu);
  if (!backend.ok()) return backend.status();
  if (!(*backend)->HasWeightFormat(options.weight_format)) {
    return Status::InvalidArgument(
        "fp8 weights need a CUDA device, this is " + (*backend)->info().kind +
        (why_cpu.empty() ? std::string() : " (" + why_cpu + ")") + "; use another dtype");
  }
  std::optional<MappedLora> merged;
  if (options.merged_adapter) {
    StatusOr<MappedLora> mapped = MapLora(options.config, options.merged_adapter->lora);
    if (!mapped.ok()) return mapped.status();
    merged = std::move(mapped).value();
  }
  auto model = LlamaModel::Load(**backend, options.config, options.checkpoint,
                                options.weight_format, std::max(options.max_batch_tokens, 1),
                                MaxLogitRows(options), progress, merged ? &*merged : nullptr);
  if (!model.ok()) return model.status();
  const StatusOr<uint64_t> budget_bytes = (*backend)->KvCacheBudgetBytes();
  if (!budget_bytes.ok()) return budget_bytes.status();
  shape = KvShapeOf(options, budget_bytes.value());
  if (!shape.ok()) return shape.status();
  auto cache = (*backend)->AllocateKvCache(*shape);
  if (!cache.ok()) return cache.status();
  std::unique_ptr<ModelRunner> runner =
      std::make_unique<LlamaRunner>(std::move(backend.value()), std::move(model.value()),
                                    std::move(cache.value()), std::move(why_cpu));
  return runner;
}

}  // namespace llama_steer
