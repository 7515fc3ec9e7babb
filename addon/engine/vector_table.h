// Steering vectors on the device. A request pins the content it began with: rows leave the device
// when the handle is dropped and the last request that uses it has ended. Engine thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/model_runner.h"
#include "engine/request.h"
#include "engine/sha256.h"

namespace llama_steer {

/// Immutable once made; gives its device rows back when destroyed.
class ResidentVector {
 public:
  ResidentVector(ModelRunner* runner, const Digest& digest) : runner_(runner), digest_(digest) {}
  ~ResidentVector();
  ResidentVector(const ResidentVector&) = delete;
  ResidentVector& operator=(const ResidentVector&) = delete;

  const Digest& digest() const { return digest_; }
  const std::vector<int32_t>& layers() const { return layers_; }
  /// Device row for a layer, -1 when the vector does not hold the layer.
  int32_t DeviceRow(int32_t layer) const;
  /// The values for a layer that the vector holds.
  std::span<const float> HostRow(int32_t layer) const;

  Status AddRow(int32_t layer, std::span<const float> row);

 private:
  ModelRunner* runner_;  // outlives every vector; null in tests of pure code
  Digest digest_;
  std::vector<int32_t> layers_;                // ascending
  std::vector<int32_t> device_rows_;           // one a layer
  std::vector<std::vector<float>> host_rows_;  // one a layer; gates on the prompt read them
};

class VectorTable {
 public:
  VectorTable(ModelRunner& runner, int32_t hidden_size)
      : runner_(runner), hidden_size_(hidden_size) {}

  /// A device that cannot hold the vector is remembered: Find() then tells why.
  void Put(const VectorRows& vector);
  void Drop(VectorHandle handle);
  /// kNotFound for an unknown handle.
  StatusOr<std::shared_ptr<const ResidentVector>> Find(VectorHandle handle) const;

  uint32_t size() const { return static_cast<uint32_t>(vectors_.size()); }
  uint64_t size_bytes() const {
    return rows_ * static_cast<uint64_t>(hidden_size_) * sizeof(float);
  }

 private:
  struct Slot {
    Status status;
    std::shared_ptr<const ResidentVector> vector;
  };
  ModelRunner& runner_;
  int32_t hidden_size_;
  std::unordered_map<VectorHandle, Slot> vectors_;
  uint64_t rows_ = 0;  // of all vectors that are held
};

/// Shape, order of layers and finiteness of a vector for a model of these sizes.
Status CheckVectorRows(const VectorRows& vector, int32_t layers, int32_t hidden_size);

}  // namespace llama_steer
