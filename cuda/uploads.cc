#include "uploads.h"

#include <algorithm>

namespace llama_steer::cuda {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kFirstBytes = 256 << 10;

}  // namespace

Status Uploads::AddChunk(size_t bytes) {
  Chunk chunk;
  LLAMA_STEER_RETURN_IF_ERROR(chunk.host.Grow(bytes));
  LLAMA_STEER_RETURN_IF_ERROR(chunk.device.Grow(bytes));
  chunks_.push_back(std::move(chunk));
  return Status::Ok();
}

Status Uploads::PutBytes(const void* data, size_t bytes, void*& device) {
  const size_t needed = (std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  if (chunks_.empty() || chunks_.back().used_bytes + needed > chunks_.back().host.bytes()) {
    const size_t before = chunks_.empty() ? kFirstBytes / 2 : chunks_.back().host.bytes();
    LLAMA_STEER_RETURN_IF_ERROR(AddChunk(std::max(2 * before, needed)));
  }
  Chunk& chunk = chunks_.back();
  auto* host = chunk.host.as<std::byte>() + chunk.used_bytes;
  device = chunk.device.as<std::byte>() + chunk.used_bytes;
  chunk.used_bytes += needed;
  if (bytes == 0) return Status::Ok();
  std::memcpy(host, data, bytes);
  return ToStatus(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_),
                  "copying tables to the device");
}

void Uploads::Reset() {
  // The last chunk is the largest: a step like this one fits it alone next time, or the one after.
  if (chunks_.size() > 1) chunks_.erase(chunks_.begin(), chunks_.end() - 1);
  if (!chunks_.empty()) chunks_.back().used_bytes = 0;
}

}  // namespace llama_steer::cuda
