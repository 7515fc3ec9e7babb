// The backend: its buffers, and the tables of a step. Memory and steps: cuda_backend.cc; the
// operations: cuda_operations.cc and cuda_projections.cc.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "activation_buffers.h"
#include "backend/backend.h"
#include "capture_staging.h"
#include "cuda_lora.h"
#include "cuda_weight.h"
#include "kernels/attention.h"
#include "kernels/linear.h"
#include "pass_graphs.h"
#include "pass_tables.h"
#include "sampler.h"
#include "steer_tables.h"
#include "step_tables.h"
#include "support/thread_pool.h"
#include "uploads.h"
#include "vector_rows.h"

namespace llama_steer::cuda {

struct CudaKvCache final : KvCache {
  DeviceBuffer memory;
  KvPages pages() const {
    return {memory.as<void>(), shape.dtype, shape.blocks, shape.kv_heads, shape.head_size};
  }
};

inline const CudaKvCache& AsCuda(const KvCache& cache) {
  return static_cast<const CudaKvCache&>(cache);
}

inline float* Floats(const Activations& x) { return static_cast<float*>(x.data); }

class CudaBackend final : public Backend {
 public:
  CudaBackend();
  ~CudaBackend() override { cudaStreamSynchronize(stream_); }
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;

  Status Open(int32_t device);

  const DeviceInfo& info() const override { return info_; }
  StatusOr<uint64_t> KvCacheBudgetBytes() const override;

  bool HasWeightFormat(WeightFormat) const override { return true; }

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

  StatusOr<bool> BeginPass(const ForwardPass& pass) override;
  Status EndPass(bool complete) override;
  Status Embed(const Weight& table, const StepTables& step, Activations residual) override;
  Status Linear(Activations x, int64_t rows, std::span<const LinearTarget> targets) override;
  Status AddLora(Activations x, std::span<const LoraTerm> terms) override;
  Status RopeAppendKv(const RopeTable& rope, const StepTables& step, int32_t layer, Activations q,
                      Activations k, Activations v, KvCache& cache) override;
  Status Attention(const StepTables& step, int32_t layer, Activations q, const KvCache& cache,
                   Activations output) override;
  Status ApplyResidualSteerNorm(const ResidualSteerNorm& args, const StepTables& step) override;
  Status SiluMul(int64_t rows, Activations gate, Activations up) override;
  Status GatedLinear(Activations x, int64_t rows, const LinearTarget& gate, const LinearTarget& up,
                     std::span<const LoraTerm> adapters) override;
  Status QkvRopeAppend(Activations x, std::span<const LinearTarget, 3> qkv,
                       std::span<const LoraTerm> adapters, const RopeTable& rope,
                       const StepTables& step, int32_t layer, KvCache& cache) override;
  Status GatherRows(Activations x, std::span<const int32_t> rows, Activations output) override;
  Status UploadRows(std::span<const float* const> rows, Activations to) override;
  Status Sample(Activations logits, std::span<const SampleRow> rows,
                std::span<SampleResult> results) override;
  bool RunsAhead() const override { return runs_ahead_; }
  Status BeginSample(Activations logits, std::span<const SampleRow> rows) override;
  Status AwaitStep(std::span<const SampleRow> rows, std::span<SampleResult> results) override;
  Status CopyKvBlocks(std::span<const BlockCopy> copies, KvCache& cache) override;
  Status Upload(std::span<const float> values, Activations x) override;
  Status Download(Activations x, int64_t rows, std::span<float> out) override;
  Status Sync() override;

 private:
  void EndTurn();
  Status AdoptPass(const ForwardPass& pass, const PassShape& shape);
  PassMemory MemoryOfPass() const;
  /// Rows to be computed where the model asks for `rows`.
  int64_t PaddedRows(int64_t rows) const { return pass_rows_ > 0 ? pass_rows_ : rows; }
  LinearParams LinearParamsOf(const Activations& x, int64_t rows,
                              std::span<const LinearTarget> targets);
  Status LinearOfOneType(const Activations& x, int64_t rows, std::span<const LinearTarget> targets);
  Status ReserveSplit(LinearSplit& split);
  /// Whether a kernel takes the projections in one pass with what follows them.
  bool Fuses(int64_t rows, std::span<const LinearTarget> targets,
             std::span<const LoraTerm> adapters) const;
  /// The bf16 copy of the first rows, if it is not there.
  Status RoundRows(const Activations& x, int64_t rows);
  Status TurnsOf(const RopeTable& rope);
  /// Of the prepared step, but for the addresses of q, k and v.
  RopeAppendParams RopeParamsOf(int32_t layer, const Activations& q, const KvCache& cache) const;
  Status AttentionOnTensorCores(const AttentionParams& common, const StepTables& step);
  Status CopyCaptures(const ResidualSteerNorm& args);
  void WroteRounded(const Activations& x, int64_t rows) { activations_.of(x).rounded_rows = rows; }
  void WroteValuesOnly(const Activations& x) { activations_.of(x).rounded_rows = 0; }

  // The stream first: everything below it may have work on it until its end.
  Stream stream_;
  ThreadPool pool_;
  DeviceInfo info_;
  int32_t multiprocessors_ = 1;
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
  uint64_t frequencies_version_ = 0;
  DeviceBuffer split_states_;
  DeviceBuffer split_sums_;
  DeviceBuffer gemm_partials_;
  DeviceBuffer gemm_arrived_;

  const bool runs_ahead_;
  size_t turn_ = 0;   // of the step that is given to the device
  size_t begun_ = 0;  // steps that have not been awaited
  std::array<Event, kTurns> done_;

  PassTables pass_tables_;
  PassGraphs graphs_;
  int64_t pass_rows_ = 0;  // of a pass that is padded; else 0
};

/// Errors: kFailedPrecondition for a device that is too old, kInternal for what the driver says.
StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(int32_t device);

}  // namespace llama_steer::cuda
