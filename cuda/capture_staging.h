// Captured rows on their way to the host: kernels write them to device memory, a side stream copies
// each site to pinned memory while the next layers run, Deliver() hands them over.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "kernels/residual_steer_norm.h"
#include "uploads.h"

namespace llama_steer::cuda {

class CaptureStaging {
 public:
  CaptureStaging(Uploads& uploads, const Stream& stream) : uploads_(uploads), stream_(stream) {}
  Status Create();

  /// Copies the tables unless they are those of the last call since Deliver().
  Status Prepare(const CaptureTables& tables, int64_t hidden_size);
  const DeviceCaptureTables& tables() const { return device_; }

  /// Starts copying what the kernel that was just started captures at this point and block.
  Status CopySite(CapturePoint point, int32_t block);

  /// Waits for the copies.
  Status Wait();
  /// Hands the rows over; the copies have been waited for.
  void Deliver();

 private:
  /// Tokens of one slot whose staging rows are equally far apart.
  struct Run {
    int32_t slot = 0;
    int32_t first_base = 0;
    int32_t stride = 1;  // staging rows from token to token
    int32_t count = 0;
  };
  void FindRuns(const CaptureTables& tables);

  Uploads& uploads_;
  const Stream& stream_;
  Stream side_;
  Event written_;
  bool prepared_ = false;
  CaptureTables source_;
  size_t row_bytes_ = 0;
  DeviceCaptureTables device_;
  std::vector<Run> runs_;
  std::vector<int64_t> copied_rows_;  // of staging
  DeviceBuffer staging_;
  PinnedBuffer host_staging_;
};

}  // namespace llama_steer::cuda
