// Device memory of one case, with random values or uploaded tables. The first error stays, and what
// is asked for after it is null.
#pragma once

#include <vector>

#include "cuda/device_random.h"
#include "device_memory.h"
#include "kernels/tensors.h"

namespace llama_steer::cuda::bench {

class CaseMemory {
 public:
  explicit CaseMemory(cudaStream_t stream) : stream_(stream) {}

  float* Floats(int64_t count, float scale = 1.0f, float offset = 0.0f);
  __nv_bfloat16* Bf16(int64_t count, float scale = 1.0f, float offset = 0.0f);
  /// int8 or e4m3 codes.
  uint8_t* Codes(int64_t count);

  /// Activations `[rows, cols]` in both forms.
  Matrix Activations(int64_t rows, int64_t cols, float scale = 1.0f, float offset = 0.0f);
  /// A weight of the given type, about as large as those of a model.
  WeightView Weight(DType dtype, int64_t rows, int64_t cols);

  /// Zeroed; for results and scratch.
  template <class T>
  T* Scratch(int64_t count) {
    auto* memory = static_cast<T*>(Allocate(count * static_cast<int64_t>(sizeof(T))));
    if (memory != nullptr) {
      Check(cudaMemsetAsync(memory, 0, static_cast<size_t>(count) * sizeof(T), stream_), "zeroing");
    }
    return memory;
  }
  template <class T>
  T* Upload(const std::vector<T>& values) {
    const size_t bytes = values.size() * sizeof(T);
    auto* memory = static_cast<T*>(Allocate(static_cast<int64_t>(bytes)));
    if (memory == nullptr) return nullptr;
    Check(cudaMemcpyAsync(memory, values.data(), bytes, cudaMemcpyHostToDevice, stream_), "upload");
    Check(cudaStreamSynchronize(stream_), "upload");
    return memory;
  }

  const Status& status() const { return status_; }

 private:
  void* Allocate(int64_t bytes);
  void* Filled(int64_t bytes, FillParams params);
  void Check(cudaError_t error, const char* what) {
    if (status_.ok()) status_ = ToStatus(error, what);
  }

  cudaStream_t stream_;
  std::vector<DeviceBuffer> buffers_;
  uint32_t seed_ = 1;
  Status status_;
};

}  // namespace llama_steer::cuda::bench
