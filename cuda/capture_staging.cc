#include "capture_staging.h"

#include <algorithm>
#include <cstring>

namespace llama_steer::cuda {

Status CaptureStaging::Create() {
  LLAMA_STEER_RETURN_IF_ERROR(side_.Create());
  return written_.Create();
}

void CaptureStaging::FindRuns(const CaptureTables& tables) {
  runs_.clear();
  for (size_t row = 0; row < tables.row_slot.size(); ++row) {
    const int32_t slot = tables.row_slot[row];
    if (slot == 0) continue;
    const int32_t base = tables.row_base[row];
    if (!runs_.empty() && runs_.back().slot == slot) {
      Run& run = runs_.back();
      const int32_t step = base - (run.first_base + (run.count - 1) * run.stride);
      if (step > 0 && (run.count == 1 || step == run.stride)) {
        run.stride = step;
        ++run.count;
        continue;
      }
    }
    runs_.push_back({slot, base, 1, 1});
  }
}

Status CaptureStaging::Prepare(const CaptureTables& tables, int64_t hidden_size) {
  if (prepared_ && tables.row_slot.data() == source_.row_slot.data() &&
      tables.staging == source_.staging) {
    return Status::Ok();
  }
  if (prepared_) return Status::Internal("two sets of capture tables in one step");
  FindRuns(tables);
  int32_t ordinals = 0;
  for (const int32_t ordinal : tables.site_ordinal) ordinals = std::max(ordinals, ordinal + 1);
  int64_t rows = 0;
  for (const Run& run : runs_) {
    rows = std::max(rows, int64_t{run.first_base} + (run.count - 1) * run.stride + ordinals);
  }
  if (rows > tables.staging_rows) rows = tables.staging_rows;  // not every slot has every ordinal
  row_bytes_ = static_cast<size_t>(hidden_size) * sizeof(float);
  LLAMA_STEER_RETURN_IF_ERROR(staging_.Reserve(static_cast<size_t>(rows) * row_bytes_));
  LLAMA_STEER_RETURN_IF_ERROR(host_staging_.Reserve(static_cast<size_t>(rows) * row_bytes_));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(tables.row_slot, device_.row_slot));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(tables.row_base, device_.row_base));
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(tables.site_ordinal, device_.site_ordinal));
  device_.sites = tables.sites;
  device_.staging = staging_.as<float>();
  source_ = tables;
  prepared_ = true;
  return Status::Ok();
}

Status CaptureStaging::CopySite(CapturePoint point, int32_t block) {
  const char* what = "copying captured rows to the host";
  bool waits = false;
  for (const Run& run : runs_) {
    const int32_t site = CaptureSite(point, block);
    const int32_t ordinal =
        source_.site_ordinal[static_cast<size_t>(run.slot * source_.sites + site)];
    if (ordinal < 0) continue;
    if (!waits) {
      LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaEventRecord(written_, stream_), what));
      LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaStreamWaitEvent(side_, written_, 0), what));
      waits = true;
    }
    const int64_t first = run.first_base + ordinal;
    const size_t offset = static_cast<size_t>(first) * row_bytes_;
    const size_t pitch = static_cast<size_t>(run.stride) * row_bytes_;
    LLAMA_STEER_RETURN_IF_ERROR(
        ToStatus(cudaMemcpy2DAsync(host_staging_.as<std::byte>() + offset, pitch,
                                   staging_.as<std::byte>() + offset, pitch, row_bytes_,
                                   static_cast<size_t>(run.count), cudaMemcpyDeviceToHost, side_),
                 what));
    for (int32_t i = 0; i < run.count; ++i) copied_rows_.push_back(first + i * run.stride);
  }
  return Status::Ok();
}

Status CaptureStaging::Wait() {
  if (!prepared_) return Status::Ok();
  return ToStatus(cudaStreamSynchronize(side_), "waiting for captured rows");
}

void CaptureStaging::Deliver() {
  if (!prepared_) return;
  const size_t width = row_bytes_ / sizeof(float);
  for (const int64_t row : copied_rows_) {
    const size_t offset = static_cast<size_t>(row) * width;
    std::memcpy(source_.staging + offset, host_staging_.as<float>() + offset, row_bytes_);
  }
  copied_rows_.clear();
  prepared_ = false;
}

}  // namespace llama_steer::cuda
