#include "cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "activation_buffers.h"
#include "capture_staging.h"
#include "cuda_lora.h"
#include "cuda_weight.h"
#include "kernels/attention.h"
#include "kernels/copy_rows.h"
#include "kernels/embed.h"
#include "kernels/linear.h"
#include "kernels/residual_steer_norm.h"
#include "kernels/rope_append.h"
#include "kernels/silu_mul.h"
#include "sampler.h"
#include "steer_tables.h"
#include "step_tables.h"
#include "uploads.h"
#include "vector_rows.h"

namespace llama_steer::cuda {
namespace {

constexpr int32_t kMaxHeadSize = 256;
constexpr int64_t kMaxGridRows = 65535;  // rows that stand in the y or z of a grid
/// Left to the driver, to buffers that grow with the work, and to other programs.
constexpr size_t kReservedBytes = size_t{1} << 30;
constexpr double kShareOfMemory = 0.95;

struct CudaKvCache final : KvCache {
  DeviceBuffer memory;
  KvPages pages() const {
    return {memory.as<void>(), shape.dtype, shape.blocks, shape.kv_heads, shape.head_size};
  }
};

const CudaKvCache& AsCuda(const KvCache& cache) { return static_cast<const CudaKvCache&>(cache); }

float* Floats(const Activations& x) { return static_cast<float*>(x.data); }

class CudaBackend final : public Backend {
 public:
  CudaBackend() : pool_(static_cast<int32_t>(std::max(1u, std::thread::hardware_concurrency()))) {}
  ~CudaBackend() override { cudaStreamSynchronize(stream_); }
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;

  Status Open(int32_t device);

  const DeviceInfo& info() const override { return info_; }
  StatusOr<uint64_t> KvCacheBudgetBytes() const override;

  StatusOr<Activations> AllocateActivations(int64_t rows, int64_t cols) override {
    return activations_.Allocate(rows, cols, stream_);
  }
  StatusOr<std::unique_ptr<Weight>> LoadWeight(const TensorView& view,
                                               WeightFormat format) override {
    return MakeCudaWeight(view, format, pool_, stream_);
  }
  StatusOr<std::unique_ptr<LoraWeight>> LoadLora(const TensorView& a, const TensorView& b,
                                                 float scale) override {
    return MakeCudaLora(a, b, scale, stream_);
  }
  StatusOr<std::unique_ptr<KvCache>> AllocateKvCache(const KvCacheShape& shape) override;
  StatusOr<int32_t> PutVectorRow(std::span<const float> row) override {
    return vectors_.Put(row, stream_);
  }
  void DropVectorRow(int32_t row) override { vectors_.Drop(row); }

  Status Embed(const Weight& table, const StepTables& step, Activations residual) override;
  Status Linear(Activations x, int64_t rows, std::span<const LinearTarget> targets) override;
  Status AddLora(Activations x, std::span<const LoraTerm> terms) override;
  Status RopeAppendKv(const RopeTable& rope, const StepTables& step, int32_t layer, Activations q,
                      Activations k, Activations v, KvCache& cache) override;
  Status Attention(const StepTables& step, int32_t layer, Activations q, const KvCache& cache,
                   Activations output) override;
  Status ApplyResidualSteerNorm(const ResidualSteerNorm& args, const StepTables& step) override;
  Status SiluMul(int64_t rows, Activations gate, Activations up) override;
  Status GatherRows(Activations x, std::span<const int32_t> rows, Activations output) override;
  Status UploadRows(std::span<const float* const> rows, Activations to) override;
  Status Sample(Activations logits, std::span<const SampleRow> rows,
                std::span<SampleResult> results) override;
  Status CopyKvBlocks(std::span<const BlockCopy> copies, KvCache& cache) override;
  Status Upload(std::span<const float> values, Activations x) override;
  Status Download(Activations x, int64_t rows, std::span<float> out) override;
  Status Sync() override;

 private:
  Status LinearOfOneType(const Activations& x, int64_t rows, std::span<const LinearTarget> targets);
  Status TurnsOf(const RopeTable& rope);
  Status AttentionOnTensorCores(const AttentionParams& common, const StepTables& step);
  Status CopyCaptures(const ResidualSteerNorm& args);
  void WroteRounded(const Activations& x, int64_t rows) { activations_.of(x).rounded_rows = rows; }
  void WroteValuesOnly(const Activations& x) { activations_.of(x).rounded_rows = 0; }

  // The stream first: everything below it may have work on it until its end.
  Stream stream_;
  ThreadPool pool_;
  DeviceInfo info_;
  ActivationBuffers activations_;
  VectorRows vectors_;
  Uploads uploads_{stream_};
  StepUpload step_{uploads_};
  SteerUpload steering_{uploads_, vectors_, stream_};
  ProbeUpload probes_{uploads_, vectors_, stream_};
  CaptureStaging capture_{uploads_, stream_};
  LoraStep lora_{uploads_, stream_};
  Sampler sampler_{uploads_, stream_};

  std::vector<float> inverse_frequencies_;
  DeviceBuffer device_frequencies_;
  DeviceBuffer turns_;
  bool turns_ready_ = false;  // of this step
  DeviceBuffer split_states_;
  DeviceBuffer split_sums_;
};

Status CudaBackend::Open(int32_t device) {
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaSetDevice(device), "opening the device"));
  cudaDeviceProp properties;
  LLAMA_STEER_RETURN_IF_ERROR(
      ToStatus(cudaGetDeviceProperties(&properties, device), "reading what the device is"));
  const int capability = 10 * properties.major + properties.minor;
  info_ = {LLAMA_STEER_CUDA_KIND, properties.name, "sm_" + std::to_string(capability), 0};
  constexpr int kLeastCapability = 80;
  if (capability < kLeastCapability) {
    return Status::FailedPrecondition(info_.name + " is " + info_.isa + "; sm_80 is the least");
  }
  LLAMA_STEER_RETURN_IF_ERROR(stream_.Create());
  return capture_.Create();
}

StatusOr<uint64_t> CudaBackend::KvCacheBudgetBytes() const {
  size_t free = 0;
  size_t total = 0;
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaMemGetInfo(&free, &total), "reading free memory"));
  const size_t reserved =
      std::min(kReservedBytes, total / 4);  // a small device cannot spare as much
  const auto usable = static_cast<uint64_t>(static_cast<double>(free) * kShareOfMemory);
  if (usable <= reserved) {
    return Status::ResourceExhausted("the device has no memory left for a KV cache: " +
                                     std::to_string(free) + " bytes are free");
  }
  return usable - reserved;
}

StatusOr<std::unique_ptr<KvCache>> CudaBackend::AllocateKvCache(const KvCacheShape& shape) {
  if (shape.block_tokens != kPageTokens) {
    return Status::InvalidArgument("the CUDA backend has KV blocks of 16 tokens");
  }
  if (shape.head_size <= 0 || shape.head_size % 8 != 0 || shape.head_size > kMaxHeadSize) {
    return Status::InvalidArgument("head size " + std::to_string(shape.head_size) +
                                   " is not supported: a multiple of 8 up to 256 is");
  }
  if (shape.dtype != DType::kBF16 && shape.dtype != DType::kF32) {
    return Status::InvalidArgument("the KV cache holds bf16 or f32");
  }
  auto cache = std::make_unique<CudaKvCache>();
  cache->shape = shape;
  auto bytes = static_cast<size_t>(cache->pages().page_values()) * DTypeBytes(shape.dtype);
  for (const int32_t count : {shape.kv_heads, shape.layers, shape.blocks}) {
    if (count <= 0) return Status::InvalidArgument("a KV cache without heads, layers or blocks");
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(count), &bytes)) {
      return Status::ResourceExhausted("a KV cache of that size cannot be addressed");
    }
  }
  LLAMA_STEER_RETURN_IF_ERROR(cache->memory.Grow(bytes));
  return std::unique_ptr<KvCache>(std::move(cache));
}

Status CudaBackend::Embed(const Weight& table, const StepTables& step, Activations residual) {
  LLAMA_STEER_RETURN_IF_ERROR(step_.Prepare(step));
  const EmbedParams params{cuda::AsCuda(table).view(), step_.step().token_ids,
                           static_cast<int32_t>(step.token_ids.size()),
                           activations_.matrix(residual)};
  WroteValuesOnly(residual);
  return ToStatus(cuda::Embed(params, stream_), "embed");
}

Status CudaBackend::Linear(Activations x, int64_t rows, std::span<const LinearTarget> targets) {
  size_t first = 0;
  for (size_t i = 1; i <= targets.size(); ++i) {
    if (i < targets.size() && i - first < kMaxLinearTargets &&
        targets[i].weight->dtype == targets[first].weight->dtype) {
      continue;
    }
    LLAMA_STEER_RETURN_IF_ERROR(LinearOfOneType(x, rows, targets.subspan(first, i - first)));
    first = i;
  }
  return Status::Ok();
}

Status CudaBackend::LinearOfOneType(const Activations& x, int64_t rows,
                                    std::span<const LinearTarget> targets) {
  LinearParams params;
  params.x = activations_.matrix(x);
  params.rows = rows;
  for (const LinearTarget& target : targets) {
    LinearTargetView& view = params.targets[params.target_count++];
    view.weight = cuda::AsCuda(*target.weight).view();
    if (target.bias != nullptr) view.bias = cuda::AsCuda(*target.bias).view();
    view.output = Floats(target.output);
    WroteValuesOnly(target.output);
  }
  const DType dtype = targets[0].weight->dtype;
  if (dtype == DType::kF32 || dtype == DType::kF16) {
    return ToStatus(LinearExact(params, stream_), "linear in float32");
  }
  ActivationBuffer& buffer = activations_.of(x);
  if (buffer.rounded_rows < rows) {
    LLAMA_STEER_RETURN_IF_ERROR(
        ToStatus(RoundRows({params.x, rows}, stream_), "rounding activations"));
    buffer.rounded_rows = rows;
  }
  const bool few = rows <= kMaxGemvRows;
  return ToStatus(few ? LinearGemv(params, stream_) : LinearGemm(params, stream_), "linear");
}

Status CudaBackend::AddLora(Activations x, std::span<const LoraTerm> terms) {
  for (const LoraTerm& term : terms) WroteValuesOnly(term.output);
  return lora_.Add(Floats(x), terms);
}

Status CudaBackend::TurnsOf(const RopeTable& rope) {
  const bool same = rope.inverse_frequencies == inverse_frequencies_;
  if (same && turns_ready_) return Status::Ok();
  const size_t bytes = rope.inverse_frequencies.size() * sizeof(float);
  if (!same) {
    inverse_frequencies_ = rope.inverse_frequencies;
    LLAMA_STEER_RETURN_IF_ERROR(device_frequencies_.Grow(bytes));
    const char* what = "copying rope frequencies";
    LLAMA_STEER_RETURN_IF_ERROR(
        ToStatus(cudaMemcpyAsync(device_frequencies_.as<void>(), inverse_frequencies_.data(), bytes,
                                 cudaMemcpyHostToDevice, stream_),
                 what));
    LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream_), what));
  }
  const DeviceStep& step = step_.step();
  LLAMA_STEER_RETURN_IF_ERROR(turns_.Grow(2 * bytes * static_cast<size_t>(step.rows)));
  const RopeTurnsParams params{step.positions, device_frequencies_.as<float>(), step.rows,
                               static_cast<int32_t>(inverse_frequencies_.size()),
                               turns_.as<float>()};
  turns_ready_ = true;
  return ToStatus(RopeTurns(params, stream_), "rope angles");
}

Status CudaBackend::RopeAppendKv(const RopeTable& rope, const StepTables& step, int32_t layer,
                                 Activations q, Activations k, Activations v, KvCache& cache) {
  LLAMA_STEER_RETURN_IF_ERROR(step_.Prepare(step));
  LLAMA_STEER_RETURN_IF_ERROR(TurnsOf(rope));
  RopeAppendParams params;
  params.turns = turns_.as<float>();
  params.positions = step_.step().positions;
  params.row_blocks = step_.step().row_blocks;
  params.rows = step_.step().rows;
  params.query_heads = static_cast<int32_t>(q.cols / cache.shape.head_size);
  params.q = Floats(q);
  params.k = Floats(k);
  params.v = Floats(v);
  params.pages = AsCuda(cache).pages();
  params.layer = layer;
  WroteValuesOnly(q);
  WroteValuesOnly(k);
  return ToStatus(RopeAppend(params, stream_), "rope and append");
}

Status CudaBackend::Attention(const StepTables& step, int32_t layer, Activations q,
                              const KvCache& cache, Activations output) {
  LLAMA_STEER_RETURN_IF_ERROR(step_.Prepare(step));
  const Matrix out = activations_.matrix(output);
  AttentionParams common;
  common.q = Floats(q);
  common.output = out.values;
  common.rounded = out.rounded;
  common.rounded_stride = out.rounded_stride;
  common.spans = step_.step().spans;
  common.block_table = step_.step().block_table;
  common.pages = AsCuda(cache).pages();
  common.layer = layer;
  common.query_heads = static_cast<int32_t>(q.cols / cache.shape.head_size);
  common.scale = 1.0f / std::sqrt(static_cast<float>(cache.shape.head_size));
  WroteRounded(output, step_.step().rows);
  if (HasTensorAttention(cache.shape.dtype, cache.shape.head_size)) {
    return AttentionOnTensorCores(common, step);
  }
  const AttentionExactParams params{common, step_.step().row_spans, step_.step().rows};
  return ToStatus(AttentionExact(params, stream_), "attention in float32");
}

Status CudaBackend::AttentionOnTensorCores(const AttentionParams& common, const StepTables& step) {
  LLAMA_STEER_RETURN_IF_ERROR(
      step_.PrepareAttention(step, common.query_heads / common.pages.kv_heads));
  const DeviceAttentionItems& items = step_.attention();
  const AttentionPrefillParams prefill{common, items.prefill, items.prefill_count};
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(AttentionPrefill(prefill, stream_), "attention of prompts"));
  const auto states = static_cast<size_t>(items.decode_count) *
                      static_cast<size_t>(common.pages.kv_heads) *
                      static_cast<size_t>(items.max_splits) * kDecodeRows;
  const auto head_size = static_cast<size_t>(common.pages.head_size);
  LLAMA_STEER_RETURN_IF_ERROR(split_states_.Grow(states * sizeof(SplitState)));
  LLAMA_STEER_RETURN_IF_ERROR(split_sums_.Grow(states * head_size * sizeof(float)));
  for (int32_t first = 0; first < items.decode_count; first += kMaxGridRows) {
    const auto count =
        static_cast<int32_t>(std::min<int64_t>(items.decode_count - first, kMaxGridRows));
    const AttentionDecodeParams decode{
        common,           items.decode + first,           count,
        items.max_splits, split_states_.as<SplitState>(), split_sums_.as<float>()};
    LLAMA_STEER_RETURN_IF_ERROR(
        ToStatus(AttentionDecode(decode, stream_), "attention of generation"));
  }
  return Status::Ok();
}

Status CudaBackend::ApplyResidualSteerNorm(const ResidualSteerNorm& args, const StepTables& step) {
  if (args.residual.cols > kMaxHiddenSize) {
    return Status::InvalidArgument("the CUDA backend has a hidden size of at most " +
                                   std::to_string(kMaxHiddenSize));
  }
  LLAMA_STEER_RETURN_IF_ERROR(step_.Prepare(step));
  ResidualSteerNormParams params;
  params.block = args.block;
  params.sublayer = args.sublayer;
  params.is_last = args.is_last;
  params.rows = step_.step().rows;
  params.positions = step_.step().positions;
  params.residual = Floats(args.residual);
  params.delta = args.delta == nullptr ? nullptr : Floats(*args.delta);
  params.norm_weight = cuda::AsCuda(*args.norm_weight).view();
  params.epsilon = args.epsilon;
  params.normed = activations_.matrix(args.normed);
  if (args.steering != nullptr) {
    LLAMA_STEER_RETURN_IF_ERROR(steering_.Prepare(*args.steering));
    params.steering = steering_.tables();
  }
  if (args.probes != nullptr) {
    LLAMA_STEER_RETURN_IF_ERROR(probes_.Prepare(*args.probes));
    params.probes = probes_.tables();
  }
  if (args.capture != nullptr) {
    LLAMA_STEER_RETURN_IF_ERROR(capture_.Prepare(*args.capture, args.residual.cols));
    params.capture = capture_.tables();
  }
  WroteValuesOnly(args.residual);
  WroteRounded(args.normed, params.rows);
  LLAMA_STEER_RETURN_IF_ERROR(
      ToStatus(ResidualSteerNormPass(params, stream_), "residual and norm"));
  return args.capture == nullptr ? Status::Ok() : CopyCaptures(args);
}

Status CudaBackend::CopyCaptures(const ResidualSteerNorm& args) {
  std::vector<CapturePoint> points;
  switch (args.sublayer) {
    case Sublayer::kEmbedding:
      points = {CapturePoint::kEmbedding};
      break;
    case Sublayer::kAttention:
      points = {CapturePoint::kAttentionDelta};
      break;
    case Sublayer::kMlp:
      points = {CapturePoint::kMlpDelta, CapturePoint::kResidualBeforeSteering,
                CapturePoint::kResidual};
      break;
  }
  if (args.is_last) points.push_back(CapturePoint::kFinalNorm);
  for (const CapturePoint point : points) {
    LLAMA_STEER_RETURN_IF_ERROR(capture_.CopySite(point, args.block));
  }
  return Status::Ok();
}

Status CudaBackend::SiluMul(int64_t rows, Activations gate, Activations up) {
  WroteRounded(gate, rows);
  return ToStatus(cuda::SiluMul({activations_.matrix(gate), Floats(up), rows}, stream_),
                  "silu and multiply");
}

Status CudaBackend::GatherRows(Activations x, std::span<const int32_t> rows, Activations output) {
  GatherRowsParams params;
  params.x = Floats(x);
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(rows, params.rows));
  params.count = static_cast<int32_t>(rows.size());
  params.output = activations_.matrix(output);
  WroteRounded(output, params.count);
  return ToStatus(cuda::GatherRows(params, stream_), "gathering rows");
}

Status CudaBackend::UploadRows(std::span<const float* const> rows, Activations to) {
  std::vector<float> flat;
  for (const float* row : rows) flat.insert(flat.end(), row, row + to.cols);
  const float* uploaded = nullptr;
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<float>(flat, uploaded));
  WroteValuesOnly(to);
  return ToStatus(cudaMemcpyAsync(to.data, uploaded, flat.size() * sizeof(float),
                                  cudaMemcpyDeviceToDevice, stream_),
                  "copying rows to the device");
}

Status CudaBackend::Sample(Activations logits, std::span<const SampleRow> rows,
                           std::span<SampleResult> results) {
  LLAMA_STEER_RETURN_IF_ERROR(sampler_.Start(Floats(logits), logits.cols, rows));
  LLAMA_STEER_RETURN_IF_ERROR(Sync());
  sampler_.Deliver(rows, results);
  return Status::Ok();
}

Status CudaBackend::CopyKvBlocks(std::span<const BlockCopy> copies, KvCache& cache) {
  const KvPages pages = AsCuda(cache).pages();
  const int64_t block_bytes =
      pages.page_values() * pages.kv_heads * static_cast<int64_t>(DTypeBytes(pages.dtype));
  constexpr int64_t kVectorBytes = 16;
  CopyBlocksParams params;
  params.cache = static_cast<uint4*>(pages.data);
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<BlockCopy>(copies, params.copies));
  params.count = static_cast<int32_t>(copies.size());
  params.layers = cache.shape.layers;
  params.block_vectors = block_bytes / kVectorBytes;
  params.layer_vectors = params.block_vectors * pages.blocks;
  return ToStatus(CopyBlocks(params, stream_), "copying KV blocks");
}

Status CudaBackend::Upload(std::span<const float> values, Activations x) {
  if (values.empty()) return Status::Ok();
  WroteValuesOnly(x);
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(
      cudaMemcpyAsync(x.data, values.data(), values.size_bytes(), cudaMemcpyHostToDevice, stream_),
      "copying activations to the device"));
  return ToStatus(cudaStreamSynchronize(stream_), "copying activations to the device");
}

Status CudaBackend::Download(Activations x, int64_t rows, std::span<float> out) {
  const size_t bytes = static_cast<size_t>(rows * x.cols) * sizeof(float);
  if (bytes == 0) return Status::Ok();
  LLAMA_STEER_RETURN_IF_ERROR(
      ToStatus(cudaMemcpyAsync(out.data(), x.data, bytes, cudaMemcpyDeviceToHost, stream_),
               "copying activations to the host"));
  return ToStatus(cudaStreamSynchronize(stream_), "copying activations to the host");
}

Status CudaBackend::Sync() {
  LLAMA_STEER_RETURN_IF_ERROR(steering_.Fetch());
  LLAMA_STEER_RETURN_IF_ERROR(probes_.Fetch());
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream_), "waiting for the device"));
  LLAMA_STEER_RETURN_IF_ERROR(capture_.Wait());
  steering_.Deliver();
  probes_.Deliver();
  capture_.Deliver();
  step_.Forget();
  turns_ready_ = false;
  uploads_.Reset();
  return Status::Ok();
}

}  // namespace

StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(int32_t device) {
  auto backend = std::make_unique<CudaBackend>();
  LLAMA_STEER_RETURN_IF_ERROR(backend->Open(device));
  return std::unique_ptr<Backend>(std::move(backend));
}

}  // namespace llama_steer::cuda
