// The CPU backend: hands each operation of backend.h to its kernel.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <thread>

#include "backend/backend.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/cpu_weight.h"
#include "backend/cpu/elementwise.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/kl_divergence.h"
#include "backend/cpu/kv_layout.h"
#include "backend/cpu/linear.h"
#include "backend/cpu/lora.h"
#include "backend/cpu/residual_steer_norm.h"
#include "backend/cpu/rope_append.h"
#include "backend/cpu/sample.h"
#include "support/thread_pool.h"

namespace llama_steer {
namespace {

using namespace cpu;  // NOLINT: the kernels of this very file

float* Floats(Activations x) { return static_cast<float*>(x.data); }

std::string ProcessorName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(':');
    if (line.starts_with("model name") && colon != std::string::npos) {
      return line.substr(std::min(colon + 2, line.size()));
    }
  }
  return "unknown processor";
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(int32_t threads, IsaHold isa)
      : isa_(std::move(isa)),
        pool_(threads),
        scratch_(ThreadCount(pool_)),
        linear_(pool_.threads()) {
    info_ = {"cpu", ProcessorName(), *isa_, pool_.threads()};
  }

  const DeviceInfo& info() const override { return info_; }

  StatusOr<Activations> AllocateActivations(int64_t rows, int64_t cols) override {
    if (rows < 0 || cols < 0) return Status::InvalidArgument("negative size of activations");
    constexpr int64_t kMaxValues = std::numeric_limits<int64_t>::max() / 8;
    if (cols > 0 && rows > kMaxValues / cols) {
      return Status::ResourceExhausted("activations of that size cannot be addressed");
    }
    // Whole cache lines, so that no vector of a row straddles two without need.
    const size_t bytes =
        (static_cast<size_t>(rows * cols) * sizeof(float) + kCacheLine) / kCacheLine * kCacheLine;
    Buffer buffer(static_cast<float*>(std::aligned_alloc(kCacheLine, bytes)));
    if (buffer == nullptr) {
      return Status::ResourceExhausted("no memory for activations of " + std::to_string(bytes) +
                                       " bytes");
    }
    buffers_.push_back(std::move(buffer));
    return Activations{buffers_.back().get(), rows, cols};
  }

  StatusOr<std::unique_ptr<Weight>> LoadWeight(const TensorView& view,
                                               WeightFormat format) override {
    return MakeCpuWeight(view, format, pool_);
  }

  StatusOr<std::unique_ptr<LoraWeight>> LoadLora(const TensorView& a, const TensorView& b,
                                                 float scale) override {
    return MakeCpuLoraWeight(a, b, scale);
  }

  StatusOr<std::unique_ptr<KvCache>> AllocateKvCache(const KvCacheShape& shape) override {
    if (shape.block_tokens != kPageTokens) {
      return Status::InvalidArgument("the CPU backend has KV blocks of 16 tokens");
    }
    if (shape.head_size <= 0 || shape.head_size % 8 != 0 || shape.head_size > kMaxHeadSize) {
      return Status::InvalidArgument("head size " + std::to_string(shape.head_size) +
                                     " is not supported: a multiple of 8 up to 256 is");
    }
    if (shape.dtype != DType::kBF16 && shape.dtype != DType::kF32) {
      return Status::InvalidArgument("the KV cache holds bf16 or f32");
    }
    auto cache = std::make_unique<CpuKvCache>();
    cache->shape = shape;
    size_t bytes = cache->page_bytes();
    for (const int32_t count : {shape.kv_heads, shape.layers, shape.blocks}) {
      if (count <= 0) return Status::InvalidArgument("a KV cache without heads, layers or blocks");
      if (__builtin_mul_overflow(bytes, static_cast<size_t>(count), &bytes)) {
        return Status::ResourceExhausted("a KV cache of that size cannot be addressed");
      }
    }
    // Zeroed pages that the system hands out on first use.
    auto* memory = static_cast<uint8_t*>(std::calloc(bytes, 1));
    if (memory == nullptr) {
      return Status::ResourceExhausted("no memory for a KV cache of " + std::to_string(bytes) +
                                       " bytes");
    }
    cache->bytes.reset(memory);
    return std::unique_ptr<KvCache>(std::move(cache));
  }

  StatusOr<int32_t> PutVectorRow(std::span<const float> row) override {
    VectorRow vector = MakeVectorRow(row);
    if (!free_rows_.empty()) {
      const int32_t index = free_rows_.back();
      free_rows_.pop_back();
      vectors_[static_cast<size_t>(index)] = std::move(vector);
      return index;
    }
    vectors_.push_back(std::move(vector));
    return static_cast<int32_t>(vectors_.size() - 1);
  }

  void DropVectorRow(int32_t row) override {
    vectors_[static_cast<size_t>(row)] = {};
    free_rows_.push_back(row);
  }

  Status Embed(const Weight& table, const StepTables& step, Activations residual) override {
    cpu::Embed(AsCpu(table), step.token_ids, Floats(residual), pool_);
    return Status::Ok();
  }

  Status Linear(Activations x, int64_t rows, std::span<const LinearTarget> targets) override {
    std::vector<LinearJob> jobs;
    for (const LinearTarget& target : targets) {
      jobs.push_back({&AsCpu(*target.weight),
                      target.bias == nullptr ? nullptr : &AsCpu(*target.bias),
                      Floats(target.output)});
    }
    cpu::Linear(Floats(x), rows, x.cols, jobs, linear_, pool_);
    return Status::Ok();
  }

  Status AddLora(Activations x, std::span<const LoraTerm> terms) override {
    cpu::AddLora(Floats(x), x.cols, terms, lora_, pool_);
    return Status::Ok();
  }

  Status RopeAppendKv(const RopeTable& rope, const StepTables& step, int32_t layer, Activations q,
                      Activations k, Activations v, KvCache& cache) override {
    int32_t last = 0;
    for (const SequenceSpan& span : step.sequences) {
      last = std::max(last, span.first_position + span.row_count - 1);
    }
    rope_.Cover(rope, last);
    const auto query_heads = static_cast<int32_t>(q.cols / cache.shape.head_size);
    cpu::RopeAppendKv(rope_, step, layer, Floats(q), Floats(k), Floats(v), query_heads,
                      AsCpu(cache), pool_);
    return Status::Ok();
  }

  Status Attention(const StepTables& step, int32_t layer, Activations q, const KvCache& cache,
                   Activations output) override {
    const auto query_heads = static_cast<int32_t>(q.cols / cache.shape.head_size);
    cpu::Attention(step, layer, Floats(q), query_heads, AsCpu(cache), Floats(output), pool_);
    return Status::Ok();
  }

  Status ApplyResidualSteerNorm(const ResidualSteerNorm& args, const StepTables& step) override {
    cpu::ApplyResidualSteerNorm(args, step, vectors_, pool_);
    return Status::Ok();
  }

  Status SiluMul(int64_t rows, Activations gate, Activations up) override {
    cpu::SiluMul(Floats(gate), Floats(up), rows * gate.cols, pool_);
    return Status::Ok();
  }

  Status GatherRows(Activations x, std::span<const int32_t> rows, Activations output) override {
    const auto bytes = static_cast<size_t>(x.cols) * sizeof(float);
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(Floats(output) + static_cast<int64_t>(i) * output.cols,
                  Floats(x) + rows[i] * x.cols, bytes);
    }
    return Status::Ok();
  }

  Status UploadRows(std::span<const float* const> rows, Activations to) override {
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(rows[i], to.cols, Floats(to) + static_cast<int64_t>(i) * to.cols);
    }
    return Status::Ok();
  }

  Status Sample(Activations logits, std::span<const SampleRow> rows,
                std::span<SampleResult> results) override {
    const auto vocabulary = static_cast<size_t>(logits.cols);
    pool_.ParallelFor(static_cast<int64_t>(rows.size()), [&](int64_t index, int32_t worker) {
      const SampleRow& row = rows[static_cast<size_t>(index)];
      const auto logits_of = [&](int32_t logits_row) {
        return std::span<const float>(Floats(logits) + logits_row * logits.cols, vocabulary);
      };
      SampleResult& result = results[static_cast<size_t>(index)];
      result = SampleOne(logits_of(row.logits_row), row, scratch_[static_cast<size_t>(worker)]);
      if (row.reference_row >= 0) {
        result.kl = KlDivergence(logits_of(row.logits_row), logits_of(row.reference_row));
      }
    });
    return Status::Ok();
  }

  Status CopyKvBlocks(std::span<const BlockCopy> copies, KvCache& cache) override {
    CpuKvCache& pages = AsCpu(cache);
    for (int32_t layer = 0; layer < pages.shape.layers; ++layer) {
      for (const BlockCopy& copy : copies) {
        std::memcpy(pages.Page(layer, copy.destination, 0), pages.Page(layer, copy.source, 0),
                    pages.block_bytes());
      }
    }
    return Status::Ok();
  }

  Status Upload(std::span<const float> values, Activations x) override {
    std::copy(values.begin(), values.end(), Floats(x));
    return Status::Ok();
  }

  Status Download(Activations x, int64_t rows, std::span<float> out) override {
    std::copy_n(Floats(x), rows * x.cols, out.begin());
    return Status::Ok();
  }

  Status Sync() override { return Status::Ok(); }

 private:
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };
  using Buffer = std::unique_ptr<float[], Free>;
  static constexpr size_t kCacheLine = 64;  // bytes

  static size_t ThreadCount(const ThreadPool& pool) { return static_cast<size_t>(pool.threads()); }

  const IsaHold isa_;
  ThreadPool pool_;
  DeviceInfo info_;
  std::vector<Buffer> buffers_;
  std::vector<VectorRow> vectors_;
  std::vector<int32_t> free_rows_;
  std::vector<SampleScratch> scratch_;
  LinearBuffers linear_;
  LoraScratch lora_;
  RopeCache rope_;
};

}  // namespace

StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const CpuBackendOptions& options) {
  StatusOr<IsaHold> isa = HoldIsa(options.isa);
  if (!isa.ok()) return isa.status();
  const auto cores = static_cast<int32_t>(std::max(1u, std::thread::hardware_concurrency()));
  const int32_t threads = options.threads > 0 ? options.threads : cores;
  return std::unique_ptr<Backend>(std::make_unique<CpuBackend>(threads, *isa));
}

}  // namespace llama_steer
