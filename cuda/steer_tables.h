// Tables of steering and of probes on their way to the device, proof and scores on their way back.
#pragma once

#include <array>
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
    device_ = device;
    Return& way = returns_[turn_];
    way.host = host;
    way.count = count;
    return way.back.Reserve(count * sizeof(T));
  }
  /// Starts the copy to the host, behind all work of the step.
  Status Fetch(const Stream& stream) const {
    const Return& way = returns_[turn_];
    if (way.count == 0) return Status::Ok();
    return ToStatus(cudaMemcpyAsync(way.back.template as<void>(), device_, way.count * sizeof(T),
                                    cudaMemcpyDeviceToHost, stream),
                    "fetching what the kernels report");
  }
  void EndTurn() { turn_ = (turn_ + 1) % kTurns; }
  /// The copy of this turn has been waited for.
  void Deliver(size_t turn) {
    Return& way = returns_[turn];
    if (way.count > 0) std::memcpy(way.host, way.back.template as<void>(), way.count * sizeof(T));
    way.count = 0;
  }

 private:
  struct Return {
    T* host = nullptr;
    size_t count = 0;
    PinnedBuffer back;
  };
  size_t turn_ = 0;
  T* device_ = nullptr;
  std::array<Return, kTurns> returns_;
};

class ProbeUpload {
 public:
  ProbeUpload(Uploads& uploads, const VectorRows& vectors, const Stream& stream)
      : uploads_(uploads), vectors_(vectors), stream_(stream) {}

  /// Copies the tables unless they are those of the last call since Forget() or EndTurn().
  Status Prepare(const ProbeTables& tables);
  const DeviceProbeTables& tables() const { return device_; }
  Status Fetch() { return scores_.Fetch(stream_); }
  /// The tables of the next step follow.
  void EndTurn();
  void Forget() { prepared_ = false; }
  void Deliver(size_t turn) { scores_.Deliver(turn); }

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

  /// Copies the tables unless they are those of the last call since Forget() or EndTurn().
  Status Prepare(const SteerTables& tables);
  /// Takes tables that are on the device already, with the operations of Describe(), for `tables`.
  Status Adopt(const SteerTables& tables, const DeviceSteerTables& device);
  /// The operations with what their vectors are; good until the next call.
  std::span<const DeviceSteerOp> Describe(std::span<const SteerOp> ops);
  const DeviceSteerTables& tables() const { return device_; }

  Status Fetch() { return proof_.Fetch(stream_); }
  /// The tables of the next step follow.
  void EndTurn();
  void Forget() { prepared_ = false; }
  void Deliver(size_t turn) { proof_.Deliver(turn); }

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
