#include "model/llama.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "model/rope.h"

namespace llama_steer {
namespace {

uint64_t NextId() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

}  // namespace

LlamaModel::LlamaModel(Backend& backend, const LlamaConfig& config, LlamaWeights weights)
    : id_(NextId()),
      backend_(backend),
      config_(config),
      weights_(std::move(weights)),
      rope_{InverseFrequencies(config)} {}

StatusOr<std::unique_ptr<LlamaModel>> LlamaModel::Load(
    Backend& backend, const LlamaConfig& config, const CheckpointFiles& files, WeightFormat format,
    int32_t max_batch_tokens, int32_t max_logit_rows, const LoadProgress& progress,
    const MappedLora* merged) {
  LLAMA_STEER_RETURN_IF_ERROR(CheckLlamaConfig(config));
  StatusOr<LlamaWeights> weights =
      LoadLlamaWeights(backend, config, files, format, progress, merged);
  if (!weights.ok()) return weights.status();
  std::unique_ptr<LlamaModel> model(new LlamaModel(backend, config, std::move(weights).value()));
  LLAMA_STEER_RETURN_IF_ERROR(model->AllocateActivations(max_batch_tokens, max_logit_rows));
  return model;
}

Status LlamaModel::AllocateActivations(int32_t max_batch_tokens, int32_t max_logit_rows) {
  max_batch_tokens_ = max_batch_tokens;
  max_logit_rows_ = max_logit_rows;
  const int64_t d = config_.hidden_size;
  const int64_t q_width = static_cast<int64_t>(config_.query_heads) * config_.head_size;
  const int64_t kv_width = static_cast<int64_t>(config_.kv_heads) * config_.head_size;
  const struct {
    Activations* to;
    int64_t rows;
    int64_t cols;
  } wanted[] = {
      {&residual_, max_batch_tokens, d},
      {&normed_, max_batch_tokens, d},
      {&delta_, max_batch_tokens, d},
      {&q_, max_batch_tokens, q_width},
      {&k_, max_batch_tokens, kv_width},
      {&v_, max_batch_tokens, kv_width},
      {&mixed_, max_batch_tokens, q_width},
      {&gate_, max_batch_tokens, config_.intermediate_size},
      {&up_, max_batch_tokens, config_.intermediate_size},
      {&gathered_, max_logit_rows, d},
      {&logits_, max_logit_rows, config_.vocab_size},
  };
  for (const auto& buffer : wanted) {
    StatusOr<Activations> made = backend_.AllocateActivations(buffer.rows, buffer.cols);
    if (!made.ok()) return made.status();
    *buffer.to = *made;
  }
  return Status::Ok();
}

StatusOr<int32_t> LlamaModel::PutAdapter(const MappedLora& lora) {
  StatusOr<std::unique_ptr<LoraAdapter>> adapter = LoraAdapter::Load(backend_, config_, lora);
  if (!adapter.ok()) return adapter.status();
  auto free = std::ranges::find_if(adapters_, [](const auto& held) { return held == nullptr; });
  if (free == adapters_.end()) free = adapters_.emplace(free);
  *free = std::move(adapter).value();
  return static_cast<int32_t>(free - adapters_.begin());
}

void LlamaModel::DropAdapter(int32_t adapter) { adapters_[static_cast<size_t>(adapter)].reset(); }

Status LlamaModel::Forward(const LlamaStep& step, KvCache& cache) {
  const auto rows = static_cast<int64_t>(step.tables.token_ids.size());
  if (rows > max_batch_tokens_ || static_cast<int64_t>(step.logit_rows.size()) > max_logit_rows_) {
    return Status::Internal("a step larger than the model's buffers");
  }
  const ForwardPass pass{
      .model = id_,
      .cache = &cache,
      .query_heads = config_.query_heads,
      .max_rows = std::min(max_batch_tokens_, max_logit_rows_),
      .tables = step.tables,
      .logit_rows = step.logit_rows,
      .steering = step.steering,
      .observed = step.capture != nullptr || step.probes != nullptr || !step.adapters.empty()};
  const StatusOr<bool> replayed = backend_.BeginPass(pass);
  if (!replayed.ok()) return replayed.status();
  if (replayed.value()) return Status::Ok();
  const Status run = Run(step, cache);
  const Status ended = backend_.EndPass(run.ok());
  return run.ok() ? ended : run;
}

Status LlamaModel::Run(const LlamaStep& step, KvCache& cache) {
  lora_.Build(step.adapters, adapters_, {q_, k_, v_, delta_, gate_, up_, delta_}, config_.layers);
  // residual [T, d] = embedding; normed [T, d] = input of block 0
  LLAMA_STEER_RETURN_IF_ERROR(backend_.Embed(*weights_.embedding, step.tables, residual_));
  LLAMA_STEER_RETURN_IF_ERROR(
      Norm(step, 0, Sublayer::kEmbedding, *weights_.blocks[0].attention_norm));

  for (int32_t layer = 0; layer < config_.layers; ++layer) {
    const LlamaBlockWeights& block = weights_.blocks[static_cast<size_t>(layer)];
    LLAMA_STEER_RETURN_IF_ERROR(Attention(step, layer, cache));
    LLAMA_STEER_RETURN_IF_ERROR(Norm(step, layer, Sublayer::kAttention, *block.mlp_norm));
    LLAMA_STEER_RETURN_IF_ERROR(Mlp(step, layer));
    const bool last = layer + 1 == config_.layers;
    const Weight& next_norm = last
                                  ? *weights_.final_norm
                                  : *weights_.blocks[static_cast<size_t>(layer) + 1].attention_norm;
    LLAMA_STEER_RETURN_IF_ERROR(Norm(step, layer, Sublayer::kMlp, next_norm));
  }
  return Logits(step);
}

/// delta [T, d] = o_proj(softmax(q kᵀ / √D) v), q and k rotated
Status LlamaModel::Attention(const LlamaStep& step, int32_t layer, KvCache& cache) {
  const LlamaBlockWeights& block = weights_.blocks[static_cast<size_t>(layer)];
  const auto rows = static_cast<int64_t>(step.tables.token_ids.size());
  const LinearTarget qkv[] = {{block.q.weight.get(), block.q.bias.get(), q_},
                              {block.k.weight.get(), block.k.bias.get(), k_},
                              {block.v.weight.get(), block.v.bias.get(), v_}};
  LLAMA_STEER_RETURN_IF_ERROR(backend_.QkvRopeAppend(
      normed_, qkv, lora_.At(layer, LoraInput::kAttention), rope_, step.tables, layer, cache));
  LLAMA_STEER_RETURN_IF_ERROR(backend_.Attention(step.tables, layer, q_, cache, mixed_));
  const LinearTarget out[] = {{block.o.weight.get(), block.o.bias.get(), delta_}};
  LLAMA_STEER_RETURN_IF_ERROR(backend_.Linear(mixed_, rows, out));
  return AddLora(layer, LoraInput::kAttentionOutput, mixed_);
}

/// delta [T, d] = down_proj(silu(gate_proj(x)) * up_proj(x))
Status LlamaModel::Mlp(const LlamaStep& step, int32_t layer) {
  const LlamaBlockWeights& block = weights_.blocks[static_cast<size_t>(layer)];
  const auto rows = static_cast<int64_t>(step.tables.token_ids.size());
  const LinearTarget gate = {block.gate.weight.get(), block.gate.bias.get(), gate_};
  const LinearTarget up = {block.up.weight.get(), block.up.bias.get(), up_};
  LLAMA_STEER_RETURN_IF_ERROR(
      backend_.GatedLinear(normed_, rows, gate, up, lora_.At(layer, LoraInput::kMlp)));
  const LinearTarget out[] = {{block.down.weight.get(), block.down.bias.get(), delta_}};
  LLAMA_STEER_RETURN_IF_ERROR(backend_.Linear(gate_, rows, out));
  return AddLora(layer, LoraInput::kMlpOutput, gate_);
}

/// Adds to the projections of x, for the rows under an adapter: scale · B (A x)
Status LlamaModel::AddLora(int32_t layer, LoraInput input, Activations x) {
  const std::span<const LoraTerm> terms = lora_.At(layer, input);
  return terms.empty() ? Status::Ok() : backend_.AddLora(x, terms);
}

/// residual += delta; steering, capture and probes; normed = RMSNorm(residual)
Status LlamaModel::Norm(const LlamaStep& step, int32_t block, Sublayer sublayer,
                        const Weight& norm_weight) {
  ResidualSteerNorm args;
  args.block = block;
  args.sublayer = sublayer;
  args.is_last = sublayer == Sublayer::kMlp && block + 1 == config_.layers;
  args.residual = residual_;
  args.delta = sublayer == Sublayer::kEmbedding ? nullptr : &delta_;
  args.norm_weight = &norm_weight;
  args.epsilon = config_.norm_epsilon;
  args.normed = normed_;
  args.steering = step.steering;
  args.capture = step.capture;
  args.probes = step.probes;
  return backend_.ApplyResidualSteerNorm(args, step.tables);
}

/// logits [logit_rows, V] = lm_head(final norm), for the rows asked for
Status LlamaModel::Logits(const LlamaStep& step) {
  if (step.logit_rows.empty()) return Status::Ok();
  LLAMA_STEER_RETURN_IF_ERROR(backend_.GatherRows(normed_, step.logit_rows, gathered_));
  return Head(gathered_, static_cast<int64_t>(step.logit_rows.size()));
}

/// logits [rows, V] = lm_head(x)
Status LlamaModel::Head(Activations x, int64_t rows) {
  const Weight& head = weights_.head == nullptr ? *weights_.embedding : *weights_.head;
  const LinearTarget out[] = {{&head, nullptr, logits_}};
  return backend_.Linear(x, rows, out);
}

Status LlamaModel::Unembed(std::span<const float* const> rows, bool normalise) {
  const auto count = static_cast<int64_t>(rows.size());
  if (count > max_batch_tokens_ || count > max_logit_rows_) {
    return Status::Internal("more rows than the model's buffers hold");
  }
  if (!normalise) {
    LLAMA_STEER_RETURN_IF_ERROR(backend_.UploadRows(rows, normed_));
    return Head(normed_, count);
  }
  // The norm as it stands behind an embedding: nothing is added, steered or captured.
  LLAMA_STEER_RETURN_IF_ERROR(backend_.UploadRows(rows, residual_));
  unembed_positions_.resize(rows.size());
  LlamaStep step;
  step.tables.token_ids = unembed_positions_;
  step.tables.positions = unembed_positions_;
  LLAMA_STEER_RETURN_IF_ERROR(Norm(step, 0, Sublayer::kEmbedding, *weights_.final_norm));
  return Head(normed_, count);
}

}  // namespace llama_steer
