#include "model/weights.h"

#include <algorithm>
#include <map>
#include <thread>
#include <utility>

#include "model/lora_merge.h"
#include "model/tensor_map.h"

namespace llama_steer {
namespace {

const char* DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kF16:
      return "f16";
    case DType::kBF16:
      return "bf16";
    case DType::kInt8:
      return "int8";
    case DType::kFp8:
      return "fp8";
  }
  return "?";
}

/// Whether LoadWeight makes values of its own: the view's bytes are then no longer needed.
bool Converts(WeightFormat format, DType stored) {
  switch (format) {
    case WeightFormat::kAsStored:
      return false;
    case WeightFormat::kBF16:
      return stored != DType::kBF16;
    case WeightFormat::kInt8:
    case WeightFormat::kFp8:
      return true;
  }
  return false;
}
bool Quantises(WeightFormat format) {
  return format == WeightFormat::kInt8 || format == WeightFormat::kFp8;
}

/// Takes tensors out of the checkpoint one by one; what is left at the end is unknown.
class WeightLoader {
 public:
  WeightLoader(Backend& backend, WeightFormat format, const LoadProgress& progress,
               const MappedLora* merged)
      : backend_(backend), format_(format), progress_(progress), lora_(merged) {}

  Status Open(const CheckpointFiles& files);
  /// The unembedding: in the format asked for.
  Status Matrix(const std::string& name, int64_t rows, int64_t cols, std::unique_ptr<Weight>& to);
  /// A projection: in the format asked for, with what an adapter to be merged adds to it.
  Status Projection(const std::string& name, int64_t rows, int64_t cols, int32_t layer,
                    LoraModule module, std::unique_ptr<Weight>& to);
  /// A norm, a bias (rows = 1) or the embedding: as stored, so that nothing is lost.
  Status AsStored(const std::string& name, std::vector<int64_t> shape, std::unique_ptr<Weight>& to);
  /// A second use of a tensor already taken (tied embeddings under a format of their own).
  Status Again(const std::string& name, std::unique_ptr<Weight>& to);
  bool Has(const std::string& name) const { return tensors_.contains(name); }
  Status NothingLeft() const;
  std::vector<MappedFile> TakeFiles() { return std::move(files_); }
  std::vector<std::unique_ptr<uint8_t[]>> TakeMerged() { return std::move(merged_); }

 private:
  Status Load(const std::string& name, const std::vector<int64_t>& shape, WeightFormat format,
              const LoraFactors* lora, std::unique_ptr<Weight>& to);
  StatusOr<TensorView> Merge(const TensorView& view, const LoraFactors& lora);

  Backend& backend_;
  WeightFormat format_;
  const LoadProgress& progress_;
  const MappedLora* lora_;
  std::unique_ptr<ThreadPool> pool_;  // merges; made for the first
  std::vector<MappedFile> files_;
  std::vector<std::unique_ptr<uint8_t[]>> merged_;
  std::map<std::string, TensorLocation> tensors_;
  std::map<std::string, TensorLocation> taken_;
  uint64_t done_bytes_ = 0;
  uint64_t total_bytes_ = 0;
};

Status WeightLoader::Open(const CheckpointFiles& files) {
  StatusOr<std::vector<MappedFile>> mapped = MapFiles(files.paths);
  if (!mapped.ok()) return mapped.status();
  files_ = std::move(mapped).value();
  for (const TensorLocation& tensor : files.tensors) {
    if (!tensors_.emplace(tensor.name, tensor).second) {
      return Status::InvalidArgument("tensor " + tensor.name + " occurs twice");
    }
    total_bytes_ += tensor.size_bytes;
  }
  return Status::Ok();
}

Status WeightLoader::Load(const std::string& name, const std::vector<int64_t>& shape,
                          WeightFormat format, const LoraFactors* lora,
                          std::unique_ptr<Weight>& to) {
  auto node = tensors_.extract(name);
  if (node.empty()) return Status::InvalidArgument("tensor " + name + " is missing");
  const TensorLocation& tensor = node.mapped();
  if (tensor.shape != shape) {
    return Status::InvalidArgument("tensor " + name + " has shape " + ShapeText(tensor.shape) +
                                   ", the configuration asks for " + ShapeText(shape));
  }
  StatusOr<TensorView> view = ViewOf(tensor, files_);
  if (!view.ok()) return view.status();
  if (lora != nullptr) view = Merge(*view, *lora);
  if (!view.ok()) return view.status();
  StatusOr<std::unique_ptr<Weight>> weight = backend_.LoadWeight(*view, format);
  if (!weight.ok()) return weight.status();
  to = std::move(weight).value();
  if (lora != nullptr && Quantises(format)) merged_.pop_back();
  if (lora != nullptr || Converts(format, tensor.dtype)) {
    files_[static_cast<size_t>(tensor.file)].Release(tensor.offset_bytes, tensor.size_bytes);
  }
  done_bytes_ += tensor.size_bytes;
  if (progress_ && !progress_(done_bytes_, total_bytes_)) {
    return {StatusCode::kCancelled, "loading was stopped"};
  }
  taken_.insert(std::move(node));
  return Status::Ok();
}

Status WeightLoader::Matrix(const std::string& name, int64_t rows, int64_t cols,
                            std::unique_ptr<Weight>& to) {
  return Load(name, {rows, cols}, format_, nullptr, to);
}

Status WeightLoader::Projection(const std::string& name, int64_t rows, int64_t cols, int32_t layer,
                                LoraModule module, std::unique_ptr<Weight>& to) {
  const LoraFactors* lora = lora_ == nullptr ? nullptr : lora_->Find(layer, module);
  return Load(name, {rows, cols}, format_, lora, to);
}

/// In the type that the projection has at run time, or has before it is quantised.
StatusOr<TensorView> WeightLoader::Merge(const TensorView& view, const LoraFactors& lora) {
  if (pool_ == nullptr) {
    const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
    pool_ = std::make_unique<ThreadPool>(static_cast<int32_t>(cores));
  }
  const DType dtype = format_ == WeightFormat::kBF16 ? DType::kBF16 : view.dtype;
  StatusOr<std::unique_ptr<uint8_t[]>> bytes = MergeLora(view, lora, dtype, *pool_);
  if (!bytes.ok()) return bytes.status();
  merged_.push_back(std::move(bytes).value());
  TensorView merged = view;
  merged.data = merged_.back().get();
  merged.dtype = dtype;
  return merged;
}

Status WeightLoader::AsStored(const std::string& name, std::vector<int64_t> shape,
                              std::unique_ptr<Weight>& to) {
  return Load(name, shape, WeightFormat::kAsStored, nullptr, to);
}

Status WeightLoader::Again(const std::string& name, std::unique_ptr<Weight>& to) {
  StatusOr<TensorView> view = ViewOf(taken_.at(name), files_);
  if (!view.ok()) return view.status();
  StatusOr<std::unique_ptr<Weight>> weight = backend_.LoadWeight(*view, format_);
  if (!weight.ok()) return weight.status();
  to = std::move(weight).value();
  return Status::Ok();
}

Status WeightLoader::NothingLeft() const {
  for (const auto& [name, tensor] : tensors_) {
    // Older checkpoints store the frequencies, which the configuration determines.
    if (!name.ends_with("rotary_emb.inv_freq")) {
      return Status::InvalidArgument("tensor " + name +
                                     " is not part of a LlamaForCausalLM of this configuration");
    }
  }
  return Status::Ok();
}

Status LoadBlock(WeightLoader& loader, const LlamaConfig& config, int32_t layer,
                 LlamaBlockWeights& to) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const int64_t d = config.hidden_size;
  const int64_t wide = config.intermediate_size;
  const int64_t q_width = static_cast<int64_t>(config.query_heads) * config.head_size;
  const int64_t kv_width = static_cast<int64_t>(config.kv_heads) * config.head_size;
  const bool attention_bias = config.attention_bias;
  const bool mlp_bias = config.mlp_bias;
  LLAMA_STEER_RETURN_IF_ERROR(
      loader.AsStored(prefix + "input_layernorm.weight", {d}, to.attention_norm));
  const struct {
    const char* name;
    LoraModule module;
    int64_t rows;
    int64_t cols;
    bool bias;
    LinearWeights* to;
  } linears[] = {
      {"self_attn.q_proj", LoraModule::kQ, q_width, d, attention_bias, &to.q},
      {"self_attn.k_proj", LoraModule::kK, kv_width, d, attention_bias, &to.k},
      {"self_attn.v_proj", LoraModule::kV, kv_width, d, attention_bias, &to.v},
      {"self_attn.o_proj", LoraModule::kO, d, q_width, attention_bias, &to.o},
      {"mlp.gate_proj", LoraModule::kGate, wide, d, mlp_bias, &to.gate},
      {"mlp.up_proj", LoraModule::kUp, wide, d, mlp_bias, &to.up},
      {"mlp.down_proj", LoraModule::kDown, d, wide, mlp_bias, &to.down},
  };
  for (const auto& linear : linears) {
    const std::string name = prefix + linear.name;
    LLAMA_STEER_RETURN_IF_ERROR(loader.Projection(name + ".weight", linear.rows, linear.cols, layer,
                                                  linear.module, linear.to->weight));
    if (!linear.bias) continue;
    LLAMA_STEER_RETURN_IF_ERROR(loader.AsStored(name + ".bias", {linear.rows}, linear.to->bias));
  }
  return loader.AsStored(prefix + "post_attention_layernorm.weight", {d}, to.mlp_norm);
}

/// Weight bytes that one decode step reads: everything but the embedding table of an untied model.
uint64_t DecodeBytes(const LlamaWeights& weights) {
  uint64_t bytes = 0;
  const auto add = [&](const std::unique_ptr<Weight>& weight) {
    if (weight == nullptr) return;
    const auto count = static_cast<uint64_t>(weight->rows) * static_cast<uint64_t>(weight->cols);
    bytes += count * DTypeBytes(weight->dtype);
    if (weight->dtype == DType::kInt8) bytes += count / 32 * 2;  // scales
    if (weight->dtype == DType::kFp8) bytes += static_cast<uint64_t>(weight->rows) * 4;
  };
  for (const LlamaBlockWeights& block : weights.blocks) {
    for (const LinearWeights* linear :
         {&block.q, &block.k, &block.v, &block.o, &block.gate, &block.up, &block.down}) {
      add(linear->weight);
      add(linear->bias);
    }
    add(block.attention_norm);
    add(block.mlp_norm);
  }
  add(weights.final_norm);
  add(weights.head == nullptr ? weights.embedding : weights.head);
  return bytes;
}

}  // namespace

StatusOr<LlamaWeights> LoadLlamaWeights(Backend& backend, const LlamaConfig& config,
                                        const CheckpointFiles& files, WeightFormat format,
                                        const LoadProgress& progress, const MappedLora* merged) {
  const std::string embedding_name = "model.embed_tokens.weight";
  const std::string head_name = "lm_head.weight";
  LlamaWeights weights;
  WeightLoader loader(backend, format, progress, merged);
  LLAMA_STEER_RETURN_IF_ERROR(loader.Open(files));
  LLAMA_STEER_RETURN_IF_ERROR(
      loader.AsStored(embedding_name, {config.vocab_size, config.hidden_size}, weights.embedding));
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    LLAMA_STEER_RETURN_IF_ERROR(LoadBlock(loader, config, layer, weights.blocks.emplace_back()));
  }
  LLAMA_STEER_RETURN_IF_ERROR(
      loader.AsStored("model.norm.weight", {config.hidden_size}, weights.final_norm));
  // A tied checkpoint may still carry the shared matrix under its second name.
  if (!config.tied_embeddings || loader.Has(head_name)) {
    LLAMA_STEER_RETURN_IF_ERROR(
        loader.Matrix(head_name, config.vocab_size, config.hidden_size, weights.head));
    if (config.tied_embeddings) weights.head.reset();
  }
  if (config.tied_embeddings && Converts(format, weights.embedding->dtype)) {
    LLAMA_STEER_RETURN_IF_ERROR(loader.Again(embedding_name, weights.head));
  }
  LLAMA_STEER_RETURN_IF_ERROR(loader.NothingLeft());
  weights.files = loader.TakeFiles();
  weights.merged = loader.TakeMerged();
  weights.dtype_name = DTypeName(weights.blocks[0].q.weight->dtype);
  weights.bytes = DecodeBytes(weights);
  return weights;
}

}  // namespace llama_steer
