#include "model/weights.h"

#include <algorithm>
#include <map>
#include <utility>

namespace llama_steer {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

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
  }
  return "?";
}

/// Takes tensors out of the checkpoint one by one; what is left at the end is unknown.
class WeightLoader {
 public:
  WeightLoader(Backend& backend, WeightFormat format, const LoadProgress& progress)
      : backend_(backend), format_(format), progress_(progress) {}

  Status Open(const CheckpointFiles& files);
  /// A projection or the unembedding: in the format asked for.
  Status Matrix(const std::string& name, int64_t rows, int64_t cols, std::unique_ptr<Weight>& to);
  /// A norm, a bias (rows = 1) or the embedding: as stored, so that nothing is lost.
  Status AsStored(const std::string& name, std::vector<int64_t> shape, std::unique_ptr<Weight>& to);
  /// A second use of a tensor already taken (tied embeddings under int8).
  Status Again(const std::string& name, std::unique_ptr<Weight>& to);
  bool Has(const std::string& name) const { return tensors_.contains(name); }
  Status NothingLeft() const;
  std::vector<MappedFile> TakeFiles() { return std::move(files_); }

 private:
  StatusOr<TensorView> View(const TensorLocation& tensor) const;
  Status Load(const std::string& name, const std::vector<int64_t>& shape, WeightFormat format,
              std::unique_ptr<Weight>& to);

  Backend& backend_;
  WeightFormat format_;
  const LoadProgress& progress_;
  std::vector<MappedFile> files_;
  std::map<std::string, TensorLocation> tensors_;
  std::map<std::string, TensorLocation> taken_;
  uint64_t done_bytes_ = 0;
  uint64_t total_bytes_ = 0;
};

Status WeightLoader::Open(const CheckpointFiles& files) {
  for (const std::string& path : files.paths) {
    StatusOr<MappedFile> file = MappedFile::Open(path);
    if (!file.ok()) return file.status();
    files_.push_back(std::move(file).value());
  }
  for (const TensorLocation& tensor : files.tensors) {
    if (!tensors_.emplace(tensor.name, tensor).second) {
      return Status::InvalidArgument("tensor " + tensor.name + " occurs twice");
    }
    total_bytes_ += tensor.size_bytes;
  }
  return Status::Ok();
}

StatusOr<TensorView> WeightLoader::View(const TensorLocation& tensor) const {
  if (tensor.file < 0 || static_cast<size_t>(tensor.file) >= files_.size()) {
    return Status::InvalidArgument("tensor " + tensor.name + " names a file that is not there");
  }
  const std::span<const std::byte> bytes = files_[static_cast<size_t>(tensor.file)].bytes();
  if (tensor.offset_bytes > bytes.size() ||
      tensor.size_bytes > bytes.size() - tensor.offset_bytes) {
    return Status::InvalidArgument("tensor " + tensor.name + " ends at byte " +
                                   std::to_string(tensor.offset_bytes + tensor.size_bytes) +
                                   " of a file of " + std::to_string(bytes.size()));
  }
  if (tensor.offset_bytes % DTypeBytes(tensor.dtype) != 0) {
    return Status::InvalidArgument("tensor " + tensor.name + " is not aligned to its type");
  }
  TensorView view;
  view.name = tensor.name;
  view.data = bytes.data() + tensor.offset_bytes;
  view.dtype = tensor.dtype;
  view.rows = tensor.shape.size() == 1 ? 1 : tensor.shape[0];
  view.cols = tensor.shape.back();
  if (view.bytes() != tensor.size_bytes) {
    return Status::InvalidArgument(
        "tensor " + tensor.name + " of shape " + ShapeText(tensor.shape) + " has " +
        std::to_string(tensor.size_bytes) + " bytes, not " + std::to_string(view.bytes()));
  }
  return view;
}

Status WeightLoader::Load(const std::string& name, const std::vector<int64_t>& shape,
                          WeightFormat format, std::unique_ptr<Weight>& to) {
  auto node = tensors_.extract(name);
  if (node.empty()) return Status::InvalidArgument("tensor " + name + " is missing");
  const TensorLocation& tensor = node.mapped();
  if (tensor.shape != shape) {
    return Status::InvalidArgument("tensor " + name + " has shape " + ShapeText(tensor.shape) +
                                   ", the configuration asks for " + ShapeText(shape));
  }
  StatusOr<TensorView> view = View(tensor);
  if (!view.ok()) return view.status();
  StatusOr<std::unique_ptr<Weight>> weight = backend_.LoadWeight(*view, format);
  if (!weight.ok()) return weight.status();
  to = std::move(weight).value();
  const bool converted = format == WeightFormat::kInt8 ||
                         (format == WeightFormat::kBF16 && tensor.dtype != DType::kBF16);
  if (converted) {
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
  return Load(name, {rows, cols}, format_, to);
}

Status WeightLoader::AsStored(const std::string& name, std::vector<int64_t> shape,
                              std::unique_ptr<Weight>& to) {
  return Load(name, shape, WeightFormat::kAsStored, to);
}

Status WeightLoader::Again(const std::string& name, std::unique_ptr<Weight>& to) {
  StatusOr<TensorView> view = View(taken_.at(name));
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

Status LoadLinear(WeightLoader& loader, const std::string& name, int64_t rows, int64_t cols,
                  bool bias, LinearWeights& to) {
  LLAMA_STEER_RETURN_IF_ERROR(loader.Matrix(name + ".weight", rows, cols, to.weight));
  if (!bias) return Status::Ok();
  return loader.AsStored(name + ".bias", {rows}, to.bias);
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
    int64_t rows;
    int64_t cols;
    bool bias;
    LinearWeights* to;
  } linears[] = {
      {"self_attn.q_proj", q_width, d, attention_bias, &to.q},
      {"self_attn.k_proj", kv_width, d, attention_bias, &to.k},
      {"self_attn.v_proj", kv_width, d, attention_bias, &to.v},
      {"self_attn.o_proj", d, q_width, attention_bias, &to.o},
      {"mlp.gate_proj", wide, d, mlp_bias, &to.gate},
      {"mlp.up_proj", wide, d, mlp_bias, &to.up},
      {"mlp.down_proj", d, wide, mlp_bias, &to.down},
  };
  for (const auto& linear : linears) {
    LLAMA_STEER_RETURN_IF_ERROR(LoadLinear(loader, prefix + linear.name, linear.rows, linear.cols,
                                           linear.bias, *linear.to));
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
                                        const LoadProgress& progress) {
  const std::string embedding_name = "model.embed_tokens.weight";
  const std::string head_name = "lm_head.weight";
  LlamaWeights weights;
  WeightLoader loader(backend, format, progress);
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
  const bool converts = format == WeightFormat::kInt8 ||
                        (format == WeightFormat::kBF16 && weights.embedding->dtype != DType::kBF16);
  if (config.tied_embeddings && converts) {
    LLAMA_STEER_RETURN_IF_ERROR(loader.Again(embedding_name, weights.head));
  }
  LLAMA_STEER_RETURN_IF_ERROR(loader.NothingLeft());
  weights.files = loader.TakeFiles();
  weights.dtype_name = DTypeName(weights.blocks[0].q.weight->dtype);
  weights.bytes = DecodeBytes(weights);
  return weights;
}

}  // namespace llama_steer
