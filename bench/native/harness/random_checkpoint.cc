#include "harness/random_checkpoint.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support/float_types.h"

namespace llama_steer::bench {
namespace {

// Largest prime below 2^22: read cyclically, no two rows of a matrix come out equal.
constexpr size_t kBlockValues = 4194301;
constexpr float kWeightStddev = 0.02f;
constexpr uint64_t kAlignmentBytes = 64;

Status Errno(const std::string& what) {
  return Status::Internal(what + ": " + std::strerror(errno));
}

/// Appends tensors to a file and remembers where they lie.
class RandomFile {
 public:
  explicit RandomFile(int descriptor) : descriptor_(descriptor), block_(kBlockValues) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0f, kWeightStddev);
    for (uint16_t& value : block_) value = Bf16FromFloat(normal(random));
  }

  Status Matrix(const std::string& name, int64_t rows, int64_t cols) {
    const size_t values = static_cast<size_t>(rows) * static_cast<size_t>(cols);
    size_t begin = std::hash<std::string>{}(name) % kBlockValues;
    Begin(name, {rows, cols}, values);
    for (size_t left = values; left > 0;) {
      const size_t count = std::min(left, kBlockValues - begin);
      LLAMA_STEER_RETURN_IF_ERROR(Write(std::span(block_).subspan(begin, count)));
      left -= count;
      begin = 0;
    }
    return Align();
  }

  Status Norm(const std::string& name, int64_t cols) {
    const std::vector<uint16_t> ones(static_cast<size_t>(cols), Bf16FromFloat(1.0f));
    Begin(name, {cols}, ones.size());
    LLAMA_STEER_RETURN_IF_ERROR(Write(ones));
    return Align();
  }

  std::vector<TensorLocation> TakeTensors() { return std::move(tensors_); }

 private:
  void Begin(const std::string& name, std::vector<int64_t> shape, size_t values) {
    tensors_.push_back({.name = name,
                        .dtype = DType::kBF16,
                        .shape = std::move(shape),
                        .file = 0,
                        .offset_bytes = offset_,
                        .size_bytes = values * sizeof(uint16_t)});
  }

  Status Write(std::span<const uint16_t> values) {
    const auto bytes = std::as_bytes(values);
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t written = write(descriptor_, bytes.data() + done, bytes.size() - done);
      if (written < 0) return Errno("writing random weights");
      done += static_cast<size_t>(written);
    }
    offset_ += bytes.size();
    return Status::Ok();
  }

  Status Align() {
    offset_ = (offset_ + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
    if (lseek(descriptor_, static_cast<off_t>(offset_), SEEK_SET) < 0) return Errno("lseek");
    if (ftruncate(descriptor_, static_cast<off_t>(offset_)) != 0) return Errno("ftruncate");
    return Status::Ok();
  }

  int descriptor_;
  std::vector<uint16_t> block_;
  uint64_t offset_ = 0;
  std::vector<TensorLocation> tensors_;
};

Status WriteBlock(RandomFile& file, const LlamaConfig& config, int32_t layer) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const int64_t d = config.hidden_size;
  const int64_t q_width = int64_t{config.query_heads} * config.head_size;
  const int64_t kv_width = int64_t{config.kv_heads} * config.head_size;
  LLAMA_STEER_RETURN_IF_ERROR(file.Norm(prefix + "input_layernorm.weight", d));
  const struct {
    const char* name;
    int64_t rows;
    int64_t cols;
  } matrices[] = {
      {"self_attn.q_proj", q_width, d},
      {"self_attn.k_proj", kv_width, d},
      {"self_attn.v_proj", kv_width, d},
      {"self_attn.o_proj", d, q_width},
      {"mlp.gate_proj", config.intermediate_size, d},
      {"mlp.up_proj", config.intermediate_size, d},
      {"mlp.down_proj", d, config.intermediate_size},
  };
  for (const auto& matrix : matrices) {
    LLAMA_STEER_RETURN_IF_ERROR(
        file.Matrix(prefix + matrix.name + ".weight", matrix.rows, matrix.cols));
  }
  return file.Norm(prefix + "post_attention_layernorm.weight", d);
}

}  // namespace

StatusOr<CheckpointFiles> MakeRandomCheckpoint(const LlamaConfig& config) {
  const char* folder = std::getenv("TMPDIR");
  std::string path = std::string(folder != nullptr ? folder : "/var/tmp") + "/llama-steer-XXXXXX";
  const int descriptor = mkostemp(path.data(), O_CLOEXEC);
  if (descriptor < 0) return Errno(path);
  unlink(path.c_str());
  RandomFile file(descriptor);
  const int64_t d = config.hidden_size;
  LLAMA_STEER_RETURN_IF_ERROR(file.Matrix("model.embed_tokens.weight", config.vocab_size, d));
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    LLAMA_STEER_RETURN_IF_ERROR(WriteBlock(file, config, layer));
  }
  LLAMA_STEER_RETURN_IF_ERROR(file.Norm("model.norm.weight", d));
  if (!config.tied_embeddings) {
    LLAMA_STEER_RETURN_IF_ERROR(file.Matrix("lm_head.weight", config.vocab_size, d));
  }
  // The descriptor stays open for the life of the process: it is the file's only name.
  return CheckpointFiles{.paths = {"/proc/self/fd/" + std::to_string(descriptor)},
                         .tensors = file.TakeTensors()};
}

}  // namespace llama_steer::bench
