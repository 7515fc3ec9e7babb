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
  RandomFile(int descriptor, bool shared)
      : descriptor_(descriptor), shared_(shared), block_(kBlockValues) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0f, kWeightStddev);
    for (uint16_t& value : block_) value = Bf16FromFloat(normal(random));
  }

  Status Matrix(const std::string& name, int64_t rows, int64_t cols) {
    const size_t values = static_cast<size_t>(rows) * static_cast<size_t>(cols);
    if (shared_) return SharedMatrix(name, {rows, cols}, values);
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
    if (shared_ && norm_ != kNowhere) return At(name, {cols}, norm_, ones.size());
    norm_ = offset_;
    Begin(name, {cols}, ones.size());
    LLAMA_STEER_RETURN_IF_ERROR(Write(ones));
    return Align();
  }

  std::vector<TensorLocation> TakeTensors() { return std::move(tensors_); }

 private:
  static constexpr uint64_t kNowhere = ~uint64_t{0};

  Status At(const std::string& name, std::vector<int64_t> shape, uint64_t offset, size_t values) {
    tensors_.push_back({.name = name,
                        .dtype = DType::kBF16,
                        .shape = std::move(shape),
                        .file = 0,
                        .offset_bytes = offset,
                        .size_bytes = values * sizeof(uint16_t)});
    return Status::Ok();
  }
  void Begin(const std::string& name, std::vector<int64_t> shape, size_t values) {
    static_cast<void>(At(name, std::move(shape), offset_, values));
  }

  /// The embedding comes first and is the largest: the others begin where it begins.
  Status SharedMatrix(const std::string& name, std::vector<int64_t> shape, size_t values) {
    if (matrix_ == kNowhere) matrix_ = offset_;
    for (; matrix_values_ < values; matrix_values_ += kBlockValues) {
      LLAMA_STEER_RETURN_IF_ERROR(Write(block_));
    }
    LLAMA_STEER_RETURN_IF_ERROR(Align());
    return At(name, std::move(shape), matrix_, values);
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
  bool shared_;
  std::vector<uint16_t> block_;
  uint64_t offset_ = 0;
  uint64_t norm_ = kNowhere;    // of the shared norm
  uint64_t matrix_ = kNowhere;  // of the shared matrix
  size_t matrix_values_ = 0;
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

StatusOr<CheckpointFiles> MakeRandomCheckpoint(const LlamaConfig& config, bool shared) {
  const char* folder = std::getenv("TMPDIR");
  std::string path = std::string(folder != nullptr ? folder : "/var/tmp") + "/llama-steer-XXXXXX";
  const int descriptor = mkostemp(path.data(), O_CLOEXEC);
  if (descriptor < 0) return Errno(path);
  unlink(path.c_str());
  RandomFile file(descriptor, shared);
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
