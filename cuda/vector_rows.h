// Steering vectors in device memory, with what their operations need of them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "device_memory.h"

namespace llama_steer::cuda {

/// One vector v `[d]`.
struct VectorRow {
  const float* values = nullptr;     // v
  const float* direction = nullptr;  // v / ‖v‖; zeros when v is zero
  float norm = 0.0f;                 // ‖v‖
};

class VectorRows {
 public:
  /// Done on return. Rows that were dropped are given out again.
  StatusOr<int32_t> Put(std::span<const float> values, const Stream& stream);
  void Drop(int32_t row);
  const VectorRow& at(int32_t row) const { return slots_[static_cast<size_t>(row)].row; }

 private:
  struct Slot {
    VectorRow row;
    float* memory = nullptr;  // [2, d]
    size_t width = 0;         // d
  };
  /// Slots for vectors of `width` values, many at once: an allocation stops the device.
  Status AddSlots(size_t width);

  std::vector<DeviceBuffer> chunks_;
  std::vector<Slot> slots_;
  std::map<size_t, std::vector<int32_t>> free_;  // by width, the next one last
};

}  // namespace llama_steer::cuda
