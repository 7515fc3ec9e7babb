// Owners of device memory, pinned host memory, streams and events.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "cuda_status.h"

namespace llama_steer::cuda {

/// Steps that may be begun and not awaited. Pinned memory, and what is uploaded from it, is
/// each step's own, by turns; other device memory is shared, since work on the stream is in order.
inline constexpr size_t kTurns = 2;

/// Memory that Grow() may replace, but never shrinks. Freeing waits for all work of the device.
template <cudaError_t (*kAllocate)(void**, size_t), cudaError_t (*kFree)(void*)>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer() { Release(); }

  /// At least `bytes`; what was there before is lost when it had less.
  Status Grow(size_t bytes) {
    if (bytes <= bytes_) return Status::Ok();
    Release();
    const cudaError_t error = kAllocate(&data_, bytes);
    if (error != cudaSuccess) data_ = nullptr;
    if (error == cudaSuccess) bytes_ = bytes;
    return ToStatus(error, "memory of the device");
  }

  /// The same for what grows with the work, so that it is replaced a few times at most.
  Status Reserve(size_t bytes) {
    return bytes <= bytes_ ? Status::Ok() : Grow(std::max(bytes, 2 * bytes_));
  }

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  void Release() {
    if (data_ != nullptr) kFree(data_);
    data_ = nullptr;
    bytes_ = 0;
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

using DeviceBuffer = Buffer<cudaMalloc, cudaFree>;
using PinnedBuffer = Buffer<cudaMallocHost, cudaFreeHost>;

class Stream {
 public:
  Stream() = default;
  ~Stream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  Status Create() {
    return ToStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream");
  }
  operator cudaStream_t() const { return stream_; }  // NOLINT: implicit on purpose

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() = default;
  ~Event() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  Status Create() {
    return ToStatus(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "an event");
  }
  operator cudaEvent_t() const { return event_; }  // NOLINT: implicit on purpose

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace llama_steer::cuda
