// Opening a device, its memory, and the end of a step.
#include "cuda_backend.h"

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "switches.h"

namespace llama_steer::cuda {
namespace {

constexpr int32_t kMaxHeadSize = 256;
/// Left to the driver, to buffers that grow with the work, and to other programs.
constexpr size_t kReservedBytes = size_t{1} << 30;
constexpr double kShareOfMemory = 0.95;

}  // namespace

CudaBackend::CudaBackend()
    : pool_(static_cast<int32_t>(std::max(1u, std::thread::hardware_concurrency()))),
      runs_ahead_(IsSwitchedOn(kStepsAheadVariable)) {}

Status CudaBackend::Open(int32_t device) {
  OverlapSwitch() = IsSwitchedOn(kOverlapVariable);
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaSetDevice(device), "opening the device"));
  cudaDeviceProp properties;
  LLAMA_STEER_RETURN_IF_ERROR(
      ToStatus(cudaGetDeviceProperties(&properties, device), "reading what the device is"));
  const int capability = 10 * properties.major + properties.minor;
  info_ = {LLAMA_STEER_CUDA_KIND, properties.name, "sm_" + std::to_string(capability), 0};
  multiprocessors_ = properties.multiProcessorCount;
  constexpr int kLeastCapability = 80;
  if (capability < kLeastCapability) {
    return Status::FailedPrecondition(info_.name + " is " + info_.isa + "; sm_80 is the least");
  }
  LLAMA_STEER_RETURN_IF_ERROR(stream_.Create());
  for (Event& done : done_) LLAMA_STEER_RETURN_IF_ERROR(done.Create());
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

Status CudaBackend::Sample(Activations logits, std::span<const SampleRow> rows,
                           std::span<SampleResult> results) {
  LLAMA_STEER_RETURN_IF_ERROR(sampler_.Start(Floats(logits), logits.cols, rows));
  LLAMA_STEER_RETURN_IF_ERROR(Sync());
  sampler_.Deliver(turn_, rows, results);
  return Status::Ok();
}

/// Nothing of the step is asked of the device any more.
void CudaBackend::EndTurn() {
  turn_ = (turn_ + 1) % kTurns;
  uploads_.EndTurn();
  steering_.EndTurn();
  probes_.EndTurn();
  sampler_.EndTurn();
  pass_tables_.EndTurn();
  step_.Forget();
  turns_ready_ = false;
}

Status CudaBackend::BeginSample(Activations logits, std::span<const SampleRow> rows) {
  if (begun_ == kTurns) return Status::Internal("a step more than run at once");
  if (!rows.empty()) {
    LLAMA_STEER_RETURN_IF_ERROR(sampler_.Start(Floats(logits), logits.cols, rows));
  }
  LLAMA_STEER_RETURN_IF_ERROR(steering_.Fetch());
  LLAMA_STEER_RETURN_IF_ERROR(probes_.Fetch());
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaEventRecord(done_[turn_], stream_), "ending a step"));
  ++begun_;
  EndTurn();
  return Status::Ok();
}

Status CudaBackend::AwaitStep(std::span<const SampleRow> rows, std::span<SampleResult> results) {
  if (begun_ == 0) return Status::Internal("no step has been begun");
  const size_t turn = (turn_ + kTurns - begun_) % kTurns;
  --begun_;
  LLAMA_STEER_RETURN_IF_ERROR(
      ToStatus(cudaEventSynchronize(done_[turn]), "waiting for the device"));
  LLAMA_STEER_RETURN_IF_ERROR(capture_.Wait());
  sampler_.Deliver(turn, rows, results);
  steering_.Deliver(turn);
  probes_.Deliver(turn);
  capture_.Deliver();
  uploads_.Reset(turn);
  return Status::Ok();
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

PassMemory CudaBackend::MemoryOfPass() const {
  const auto address = [](const auto& buffer) {
    return reinterpret_cast<uint64_t>(buffer.template as<void>());
  };
  return {reinterpret_cast<uint64_t>(pass_tables_.address()),
          address(turns_),
          address(device_frequencies_),
          frequencies_version_,
          address(split_states_),
          address(split_sums_),
          address(gemm_partials_),
          address(gemm_arrived_),
          reinterpret_cast<uint64_t>(sampler_.results())};
}

Status CudaBackend::AdoptPass(const ForwardPass& pass, const PassShape& shape) {
  std::span<const DeviceSteerOp> ops;
  if (pass.steering != nullptr) ops = steering_.Describe(pass.steering->ops);
  LLAMA_STEER_RETURN_IF_ERROR(pass_tables_.Upload(pass, shape, ops, stream_));
  step_.Adopt(pass.tables, pass_tables_.step(), pass_tables_.attention());
  turns_ready_ = false;
  if (pass.steering == nullptr) return Status::Ok();
  return steering_.Adopt(*pass.steering, pass_tables_.steering());
}

StatusOr<bool> CudaBackend::BeginPass(const ForwardPass& pass) {
  const std::optional<PassShape> shape = graphs_.enabled() ? ShapeOf(pass) : std::nullopt;
  if (!shape) return false;
  LLAMA_STEER_RETURN_IF_ERROR(AdoptPass(pass, *shape));
  StatusOr<bool> replayed =
      graphs_.Begin({pass.model, pass.cache, *shape}, MemoryOfPass(), stream_);
  if (replayed.ok() && !replayed.value()) pass_rows_ = shape->rows;
  return replayed;
}

Status CudaBackend::EndPass(bool complete) {
  pass_rows_ = 0;
  return graphs_.End(MemoryOfPass(), complete, stream_);
}

Status CudaBackend::Sync() {
  LLAMA_STEER_RETURN_IF_ERROR(steering_.Fetch());
  LLAMA_STEER_RETURN_IF_ERROR(probes_.Fetch());
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream_), "waiting for the device"));
  LLAMA_STEER_RETURN_IF_ERROR(capture_.Wait());
  steering_.Deliver(turn_);
  probes_.Deliver(turn_);
  capture_.Deliver();
  uploads_.Reset(turn_);
  steering_.Forget();
  probes_.Forget();
  step_.Forget();
  turns_ready_ = false;
  return Status::Ok();
}

StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(int32_t device) {
  auto backend = std::make_unique<CudaBackend>();
  LLAMA_STEER_RETURN_IF_ERROR(backend->Open(device));
  return std::unique_ptr<Backend>(std::move(backend));
}

}  // namespace llama_steer::cuda
