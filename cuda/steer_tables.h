// Tables of steering and of probes on their way to the device, proof and scores on their way back.
#pragma once

#include <cstring>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "kernels/residual_steer_norm.h"
#include "uploads.h"
#include "vector_rows.h"

namespace llama_steer::cuda {

/// A table of the host that kernels add to: it goes to the device as it is, and comes back.
template <class T>
class RoundTrip {
 public:
  Status Send(T* host, size_t count, Uploads& uploads, T*& device) {
    const T* sent = nullptr;
    LLAMA_STEER_RETURN_IF_ERROR(uploads.Put<T>({host, count}, sent));
    device = const_cast<T*>(sent);  // the mirror is this step's own
    return Adopt(host, count, device);
  }
  /// Takes a table that is on the device already for that of the host.
  Status Adopt(T* host, size_t count, T* device) {
    host_ = host;
    count_ = count;
    device_ = device;
    return back_.Reserve(bytes());
  }
  /// Starts the copy to the host, behind all work of the step.
  Status Fetch(const Stream& stream) const {
    if (count_ == 0) return Status::Ok();
    return ToStatus(cudaMemcpyAsync(back_.template as<void>(), device_, bytes(),
                                    cudaMemcpyDeviceToHost, stream),
                    "fetching what the kernels report");
  }
  /// The stream has been waited for.
  void Deliver() {
    if (count_ > 0) std::memcpy(host_, back_.template as<void>(), bytes());
    count_ = 0;
  }

 private:
  size_t bytes() const { return count_ * sizeof(T); }

  T* host_ = nullptr;
  T* device_ = nullptr;
  size_t count_ = 0;
  PinnedBuffer back_;
};

class ProbeUpload {
 public:
  ProbeUpload(Uploads& uploads, const VectorRows& vectors, const Stream& stream)
      : uploads_(uploads), vectors_(vectors), stream_(stream) {}

  /// Copies the tables unless they are those of the last call since Deliver().
  Status Prepare(const ProbeTables& tables);
  const DeviceProbeTables& tables() const { return device_; }
  Status Fetch() { return scores_.Fetch(stream_); }
  void Deliver();

 private:
  Uploads& uploads_;
  const VectorRows& vectors_;
  const Stream& stream_;
  bool prepared_ = false;
  ProbeTables source_;
  DeviceProbeTables device_;
  std::vector<DeviceProbeOp> ops_;
  RoundTrip<float> scores_;
};

class SteerUpload {
 public:
  SteerUpload(Uploads& uploads, const VectorRows& vectors, const Stream& stream)
      : uploads_(uploads), vectors_(vectors), stream_(stream) {}

  /// Copies the tables unless they are those of the last call since Deliver().
  Status Prepare(const SteerTables& tables);
  /// Takes tables that are on the device already, with the operations of Describe(), for `tables`.
  Status Adopt(const SteerTables& tables, const DeviceSteerTables& device);
  /// The operations with what their vectors are; good until the next call.
  std::span<const DeviceSteerOp> Describe(std::span<const SteerOp> ops);
  const DeviceSteerTables& tables() const { return device_; }

  Status Fetch() { return proof_.Fetch(stream_); }
  void Deliver();

 private:
  DeviceSteerOp DeviceOp(const SteerOp& op) const;
  DeviceSteerGate DeviceGate(const SteerGate& gate) const;
  Status PutGates(const SteerTables& tables);

  Uploads& uploads_;
  const VectorRows& vectors_;
  const Stream& stream_;
  bool prepared_ = false;
  SteerTables source_;
  DeviceSteerTables device_;
  std::vector<DeviceSteerOp> ops_;
  std::vector<DeviceSteerGate> gates_;
  RoundTrip<SteerProof> proof_;
};

}  // namespace llama_steer::cuda
