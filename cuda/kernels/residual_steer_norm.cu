#include <type_traits>

#include "device/ptx.h"
#include "device/reduce.h"
#include "kernels/residual_steer_norm.h"

namespace llama_steer::cuda {
namespace {

constexpr int kMaxThreads = 512;  // more would leave too few registers for a row and a vector

struct Shared {
  BlockSum<float, 2>::Storage sums;
};

/// A row of `d` values, spread over the threads of its block: thread t holds values t, t + threads,
/// … of it. What lies past the end is zero.
template <int kPerThread>
class Row {
 public:
  __device__ Row(const ResidualSteerNormParams& params, BlockSum<float, 2>& sum)
      : params_(params),
        sum_(sum),
        row_(blockIdx.x),
        size_(static_cast<int32_t>(params.normed.cols)),
        slot_(params.steering.row_slot == nullptr ? 0 : params.steering.row_slot[row_]) {}

  __device__ void Run() {
    AllowNext();
    LoadAhead();
    WaitForPrior();
    LoadAndAdd();
    if (params_.sublayer == Sublayer::kEmbedding) Capture(CapturePoint::kEmbedding);
    if (params_.sublayer == Sublayer::kMlp) {
      Capture(CapturePoint::kResidualBeforeSteering);
      if (slot_ != 0) SteerAll();
      Capture(CapturePoint::kResidual);
      if (params_.probes.row_slot != nullptr) Probe();
    }
    Store(params_.residual + row_ * size_);
    Normalise();
    if (params_.is_last) Capture(CapturePoint::kFinalNorm);
  }

 private:
  /// A wide row leaves no registers for its weight, a vector and an operation: they are prefetched.
  static constexpr bool kHoldsAhead = kPerThread <= 8;
  static constexpr int kHeld = kHoldsAhead ? kPerThread : 1;
  using OpOfTable = std::conditional_t<kHoldsAhead, DeviceSteerOp, const DeviceSteerOp&>;

  template <class Body>
  __device__ __forceinline__ void Each(const Body& body) const {
    LLAMA_STEER_UNROLL
    for (int j = 0; j < kPerThread; ++j) {
      const int32_t i = j * static_cast<int32_t>(blockDim.x) + static_cast<int32_t>(threadIdx.x);
      if (i < size_) body(j, i);
    }
  }

  /// What no kernel of the step writes, while the one before this still runs: each of these loads
  /// needs the one before it.
  __device__ __forceinline__ void LoadAhead() {
    WithRow(params_.norm_weight, 0, [&](const auto* weight) {
      if constexpr (kHoldsAhead) {
        Each([&](int j, int32_t i) { weight_[j] = ToFloat(weight[i]); });
      } else {
        PrefetchRow(weight, size_ * static_cast<int32_t>(sizeof(*weight)));
      }
    });
    if (params_.sublayer != Sublayer::kMlp || slot_ == 0) return;
    const DeviceSteerTables& steering = params_.steering;
    const SteerOpRange range = steering.ranges[params_.block * steering.slots + slot_];
    if constexpr (kHoldsAhead) ops_ = range;
    for (int32_t i = range.begin; i < range.end; ++i) {
      const OpOfTable op = steering.ops[i];
      if constexpr (kHoldsAhead) {
        if (i == range.begin) {
          first_op_ = op;
          LoadVector(op, first_vector_);
          continue;
        }
      }
      PrefetchRow(VectorOf(op), size_ * static_cast<int32_t>(sizeof(float)));
    }
  }

  __device__ __forceinline__ void PrefetchRow(const void* row, int32_t bytes) const {
    constexpr int32_t kLine = 128;
    const auto step = static_cast<int32_t>(blockDim.x) * kLine;
    for (int32_t at = static_cast<int32_t>(threadIdx.x) * kLine; at < bytes; at += step) {
      PrefetchLine(static_cast<const uint8_t*>(row) + at);
    }
  }

  static __device__ __forceinline__ const float* VectorOf(const DeviceSteerOp& op) {
    return op.kind == SteerKind::kAdd ? op.values : op.direction;
  }
  __device__ __forceinline__ void LoadVector(const DeviceSteerOp& op,
                                             float (&v)[kPerThread]) const {
    const float* vector = VectorOf(op);
    LLAMA_STEER_UNROLL
    for (int j = 0; j < kPerThread; ++j) v[j] = 0.0f;
    Each([&](int j, int32_t i) { v[j] = vector[i]; });
  }

  __device__ __forceinline__ void Store(float* to) const {
    Each([&](int j, int32_t i) { to[i] = h_[j]; });
  }

  __device__ __forceinline__ void LoadAndAdd() {
    const float* residual = params_.residual + row_ * size_;
    LLAMA_STEER_UNROLL
    for (int j = 0; j < kPerThread; ++j) h_[j] = 0.0f;
    Each([&](int j, int32_t i) { h_[j] = residual[i]; });
    if (params_.delta == nullptr) return;
    const float* delta = params_.delta + row_ * size_;
    float* captured =
        CaptureTarget(params_.sublayer == Sublayer::kAttention ? CapturePoint::kAttentionDelta
                                                               : CapturePoint::kMlpDelta);
    if (captured != nullptr) Each([&](int, int32_t i) { captured[i] = delta[i]; });
    Each([&](int j, int32_t i) { h_[j] += delta[i]; });
  }

  /// Where the row goes at this point; null: nowhere.
  __device__ __forceinline__ float* CaptureTarget(CapturePoint point) const {
    const DeviceCaptureTables& capture = params_.capture;
    if (capture.row_slot == nullptr) return nullptr;
    const int32_t slot = capture.row_slot[row_];
    if (slot == 0) return nullptr;
    const int32_t site = params_.block * kCapturePointCount + static_cast<int32_t>(point);
    const int32_t ordinal = capture.site_ordinal[slot * capture.sites + site];
    if (ordinal < 0) return nullptr;
    return capture.staging + static_cast<int64_t>(capture.row_base[row_] + ordinal) * size_;
  }

  __device__ __forceinline__ void Capture(CapturePoint point) const {
    float* to = CaptureTarget(point);
    if (to != nullptr) Store(to);
  }

  __device__ __forceinline__ float SquaredNorm() const {
    float sum = 0.0f;
    LLAMA_STEER_UNROLL
    for (int j = 0; j < kPerThread; ++j) sum = fmaf(h_[j], h_[j], sum);
    return sum;
  }

  /// ‖h‖² and h · vector.
  __device__ __forceinline__ void Products(const float* vector, float (&sums)[2]) {
    sums[0] = SquaredNorm();
    sums[1] = 0.0f;
    Each([&](int j, int32_t i) { sums[1] = fmaf(h_[j], vector[i], sums[1]); });
    sum_(sums);
  }

  /// Before any steering of the block; the outcome goes to the proof.
  __device__ void EvaluateGates() {
    const DeviceSteerTables& steering = params_.steering;
    const SteerOpRange range = steering.gate_ranges[params_.block * steering.slots + slot_];
    if (range.begin == range.end) return;
    const int32_t position = params_.positions[row_];
    for (int32_t i = range.begin; i < range.end; ++i) {
      const DeviceSteerGate& gate = steering.gates[i];
      if (position < gate.position_begin || position >= gate.position_end) continue;
      float sums[2];
      Products(gate.vector, sums);
      // Of a row of zeros the cosine is NaN, which the caller refuses.
      const float score = gate.metric == GateMetric::kDot ? sums[1] : sums[1] / sqrtf(sums[0]);
      const bool open = gate.comparator == GateComparator::kAbove ? score > gate.threshold
                                                                  : score < gate.threshold;
      if (threadIdx.x == 0) {
        SteerProof& proof = steering.proof[row_ * steering.proof_stride + gate.steering_index];
        proof.gate_score = score;
        proof.gate = open ? GateState::kOpen : GateState::kClosed;
      }
    }
    __syncthreads();  // every thread reads the outcome
  }

  /// After the steerings of the block.
  __device__ void Probe() {
    const DeviceProbeTables& probes = params_.probes;
    const int32_t slot = probes.row_slot[row_];
    if (slot == 0) return;
    const SteerOpRange range = probes.ranges[params_.block * probes.slots + slot];
    const int32_t position = params_.positions[row_];
    for (int32_t i = range.begin; i < range.end; ++i) {
      const DeviceProbeOp& op = probes.ops[i];
      if (position < op.position_begin || position >= op.position_end) continue;
      float sums[2];
      Products(op.values, sums);
      if (threadIdx.x == 0) probes.scores[row_ * probes.score_stride + op.probe_index] = sums[1];
    }
  }

  __device__ void SteerAll() {
    const DeviceSteerTables& steering = params_.steering;
    if (steering.gates != nullptr) EvaluateGates();
    const SteerOpRange range =
        kHoldsAhead ? ops_ : steering.ranges[params_.block * steering.slots + slot_];
    const int32_t position = params_.positions[row_];
    for (int32_t i = range.begin; i < range.end; ++i) {
      const OpOfTable op = kHoldsAhead && i == range.begin ? first_op_ : steering.ops[i];
      if (position < op.position_begin || position >= op.position_end) continue;
      SteerProof& proof = steering.proof[row_ * steering.proof_stride + op.steering_index];
      if (op.gated && proof.gate != GateState::kOpen) continue;
      const float ratio = op.inert ? 0.0f : Steer(op, kHoldsAhead && i == range.begin);
      if (threadIdx.x == 0) {
        ++proof.layers_acted;
        proof.delta_ratio_sum += ratio;
      }
    }
  }

  /// Carries out one operation; returns ‖Δh‖ / ‖h‖. One reduction, two with preserve_norm.
  __device__ __forceinline__ float Steer(const DeviceSteerOp& op, bool is_held) {
    const bool adds = op.kind == SteerKind::kAdd;
    float v[kPerThread];
    if (is_held) {
      LLAMA_STEER_UNROLL
      for (int j = 0; j < kPerThread; ++j) v[j] = first_vector_[kHoldsAhead ? j : 0];
    } else {
      LoadVector(op, v);
    }
    float sums[2] = {SquaredNorm(), 0.0f};
    LLAMA_STEER_UNROLL
    for (int j = 0; j < kPerThread; ++j) sums[1] = fmaf(h_[j], v[j], sums[1]);
    sum_(sums);
    const float norm_before = sqrtf(sums[0]);
    const float along = adds ? op.coefficient : op.norm == 0.0f ? 0.0f : StepAlong(op, sums[1]);
    float change = fabsf(along) * (adds ? op.norm : 1.0f);
    if (op.preserve_norm) {
      change = ChangeAndRestoreNorm(along, v, norm_before);
    } else if (op.norm != 0.0f) {
      LLAMA_STEER_UNROLL
      for (int j = 0; j < kPerThread; ++j) h_[j] = fmaf(along, v[j], h_[j]);
    }
    return norm_before > 0.0f ? change / norm_before : 0.0f;
  }

  /// h + along · v, scaled to the length of h; returns ‖Δh‖.
  __device__ __forceinline__ float ChangeAndRestoreNorm(float along, const float (&v)[kPerThread],
                                                        float norm_before) {
    float sums[2] = {0.0f, 0.0f};
    LLAMA_STEER_UNROLL
    for (int j = 0; j < kPerThread; ++j) {
      const float changed = fmaf(along, v[j], h_[j]);
      sums[0] = fmaf(changed, changed, sums[0]);
    }
    sum_(sums);
    const float norm_after = sqrtf(sums[0]);
    const float factor = norm_after > 0.0f ? norm_before / norm_after : 1.0f;
    sums[0] = sums[1] = 0.0f;
    LLAMA_STEER_UNROLL
    for (int j = 0; j < kPerThread; ++j) {
      const float changed = fmaf(along, v[j], h_[j]) * factor;
      const float moved = changed - h_[j];
      sums[0] = fmaf(moved, moved, sums[0]);
      h_[j] = changed;
    }
    sum_(sums);
    return sqrtf(sums[0]);
  }

  /// The factor a of h + a · v̂ that carries out an operation on the component h · v̂.
  static __device__ __forceinline__ float StepAlong(const DeviceSteerOp& op, float component) {
    switch (op.kind) {
      case SteerKind::kProjectOut:
        return -op.coefficient * component;
      case SteerKind::kClamp:
        return op.coefficient * (fminf(fmaxf(component, op.clamp_min), op.clamp_max) - component);
      case SteerKind::kScaleComponent:
        return (op.coefficient - 1.0f) * component;
      case SteerKind::kAdd:
        break;
    }
    return 0.0f;
  }

  __device__ __forceinline__ void Normalise() {
    float sums[2] = {SquaredNorm(), 0.0f};
    sum_(sums);
    const float inverse = 1.0f / sqrtf(sums[0] / static_cast<float>(size_) + params_.epsilon);
    if constexpr (kHoldsAhead) {
      Each([&](int j, int32_t) { h_[j] = (h_[j] * inverse) * weight_[j]; });
    } else {
      WithRow(params_.norm_weight, 0, [&](const auto* weight) {
        Each([&](int j, int32_t i) { h_[j] = (h_[j] * inverse) * ToFloat(weight[i]); });
      });
    }
    Store(params_.normed.values + row_ * size_);
    __nv_bfloat16* rounded = params_.normed.rounded + row_ * params_.normed.rounded_stride;
    Each([&](int j, int32_t i) { rounded[i] = __float2bfloat16_rn(h_[j]); });
  }

  const ResidualSteerNormParams& params_;
  BlockSum<float, 2>& sum_;
  int64_t row_;
  int32_t size_;
  int32_t slot_;
  float h_[kPerThread];
  // Of LoadAhead.
  float weight_[kHeld];
  SteerOpRange ops_{};
  DeviceSteerOp first_op_{};
  float first_vector_[kHeld];
};

template <int kPerThread>
__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kMaxThreads)
    ResidualSteerNormKernel(ResidualSteerNormParams params) {
  BlockSum<float, 2> sum(&SharedMemory<Shared>()->sums);
  Row<kPerThread> row(params, sum);
  row.Run();
}

template <int kPerThread>
cudaError_t LaunchFor(const ResidualSteerNormParams& params, cudaStream_t stream) {
  const int64_t needed = (params.normed.cols + kPerThread - 1) / kPerThread;
  const int64_t warps = (needed + kWarpThreads - 1) / kWarpThreads;
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(params.rows), 1, 1};
  shape.threads = static_cast<unsigned>(warps * kWarpThreads);
  shape.shared_bytes = sizeof(Shared);
  shape.overlaps = true;
  return Launch<ResidualSteerNormKernel<kPerThread>>(shape, stream, params);
}

}  // namespace

cudaError_t ResidualSteerNormPass(const ResidualSteerNormParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  // The split of a row over threads depends on its width only, and so does the order of its sums.
  if (params.normed.cols <= 8 * kMaxThreads) return LaunchFor<8>(params, stream);
  if (params.normed.cols <= kMaxHiddenSize) return LaunchFor<16>(params, stream);
  return cudaErrorInvalidValue;
}

}  // namespace llama_steer::cuda
