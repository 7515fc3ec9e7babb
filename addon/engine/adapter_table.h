// Adapters on the device. As with vectors, a request pins the content it began with: an adapter
// leaves the device when its handle is dropped and the last request under it has ended. Engine
// thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "engine/model_runner.h"
#include "engine/request.h"
#include "engine/sha256.h"

namespace llama_steer {

/// Immutable; leaves the device when destroyed.
class ResidentAdapter {
 public:
  ResidentAdapter(ModelRunner& runner, const Digest& digest, int32_t device_index)
      : runner_(runner), digest_(digest), device_index_(device_index) {}
  ~ResidentAdapter() { runner_.DropAdapter(device_index_); }
  ResidentAdapter(const ResidentAdapter&) = delete;
  ResidentAdapter& operator=(const ResidentAdapter&) = delete;

  const Digest& digest() const { return digest_; }
  /// What AdapterRows::adapter names it by.
  int32_t device_index() const { return device_index_; }

 private:
  ModelRunner& runner_;  // outlives every adapter
  Digest digest_;
  int32_t device_index_;
};

class AdapterTable {
 public:
  explicit AdapterTable(ModelRunner& runner) : runner_(runner) {}

  /// A device that cannot hold the adapter is remembered: Find() then tells why.
  void Put(AdapterHandle handle, const Digest& digest, const MappedLora& lora);
  void Drop(AdapterHandle handle);
  /// Null for kNoAdapter; kNotFound for an unknown handle.
  StatusOr<std::shared_ptr<const ResidentAdapter>> Find(AdapterHandle handle) const;

  uint32_t size() const { return static_cast<uint32_t>(adapters_.size()); }
  uint64_t size_bytes() const { return bytes_; }

 private:
  struct Slot {
    Status status;
    std::shared_ptr<const ResidentAdapter> adapter;
    uint64_t bytes = 0;
  };
  ModelRunner& runner_;
  std::unordered_map<AdapterHandle, Slot> adapters_;
  uint64_t bytes_ = 0;  // of all slots
};

}  // namespace llama_steer
