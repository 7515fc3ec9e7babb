// The fused kernel of the project: residual add, steering, capture and RMSNorm in one pass over a
// row that stays in registers, all in float32.
#pragma once

#include "backend/backend.h"
#include "kernels/tensors.h"

namespace llama_steer::cuda {

/// Widest row that the kernel holds in registers.
inline constexpr int64_t kMaxHiddenSize = 8192;

/// SteerOp with what its vector is, so that the kernel looks nothing up.
struct DeviceSteerOp {
  SteerKind kind = SteerKind::kAdd;
  bool preserve_norm = false;
  bool inert = false;
  bool gated = false;
  int32_t steering_index = 0;
  float coefficient = 1.0f;
  float clamp_min = 0.0f;
  float clamp_max = 0.0f;
  int32_t position_begin = 0;
  int32_t position_end = 0;
  float norm = 0.0f;                 // ‖v‖
  const float* values = nullptr;     // v [d]
  const float* direction = nullptr;  // v / ‖v‖ [d]
};

/// SteerGate, likewise.
struct DeviceSteerGate {
  GateMetric metric = GateMetric::kDot;
  GateComparator comparator = GateComparator::kAbove;
  int32_t steering_index = 0;
  float threshold = 0.0f;
  int32_t position_begin = 0;
  int32_t position_end = 0;
  const float* vector = nullptr;  // v for kDot, v / ‖v‖ for kCosine [d]
};

/// ProbeOp, likewise.
struct DeviceProbeOp {
  int32_t probe_index = 0;
  int32_t position_begin = 0;
  int32_t position_end = 0;
  const float* values = nullptr;  // v [d]
};

/// SteerTables in device memory.
struct DeviceSteerTables {
  const int32_t* row_slot = nullptr;     // [rows]; null: nothing is steered
  const SteerOpRange* ranges = nullptr;  // [layers, slots]
  int32_t slots = 0;
  const DeviceSteerOp* ops = nullptr;
  SteerProof* proof = nullptr;  // [rows, proof_stride]
  int32_t proof_stride = 0;
  const DeviceSteerGate* gates = nullptr;     // null: none
  const SteerOpRange* gate_ranges = nullptr;  // [layers, slots]
};

/// ProbeTables in device memory.
struct DeviceProbeTables {
  const int32_t* row_slot = nullptr;     // [rows]; null: nothing is probed
  const SteerOpRange* ranges = nullptr;  // [layers, slots]
  int32_t slots = 0;
  const DeviceProbeOp* ops = nullptr;
  float* scores = nullptr;  // [rows, score_stride]
  int32_t score_stride = 0;
};

/// CaptureTables in device memory.
struct DeviceCaptureTables {
  const int32_t* row_slot = nullptr;  // [rows]; null: nothing is captured
  const int32_t* row_base = nullptr;
  const int32_t* site_ordinal = nullptr;  // [slots, sites]
  int32_t sites = 0;
  float* staging = nullptr;  // [staging rows, d]
};

struct ResidualSteerNormParams {
  int32_t block = 0;
  Sublayer sublayer = Sublayer::kEmbedding;
  bool is_last = false;
  int32_t rows = 0;
  const int32_t* positions = nullptr;  // [rows]
  float* residual = nullptr;           // [rows, d]
  const float* delta = nullptr;        // [rows, d] or null
  WeightView norm_weight;
  float epsilon = 0.0f;
  Matrix normed;
  DeviceSteerTables steering;
  DeviceCaptureTables capture;
  DeviceProbeTables probes;
};
cudaError_t ResidualSteerNormPass(const ResidualSteerNormParams& params, cudaStream_t stream);

}  // namespace llama_steer::cuda
