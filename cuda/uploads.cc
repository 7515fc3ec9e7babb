#include "uploads.h"

#include <algorithm>

namespace llama_steer::cuda {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kFirstBytes = 256 << 10;

}  // namespace

Status Uploads::AddChunk(size_t bytes, std::vector<Chunk>& chunks) {
  Chunk chunk;
  LLAMA_STEER_RETURN_IF_ERROR(chunk.host.Grow(bytes));
  LLAMA_STEER_RETURN_IF_ERROR(chunk.device.Grow(bytes));
  chunks.push_back(std::move(chunk));
  return Status::Ok();
}

Status Uploads::PutBytes(const void* data, size_t bytes, void*& device) {
  const size_t needed = (std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  std::vector<Chunk>& chunks = chunks_[turn_];
  if (chunks.empty() || chunks.back().used_bytes + needed > chunks.back().host.bytes()) {
    const size_t before = chunks.empty() ? kFirstBytes / 2 : chunks.back().host.bytes();
    LLAMA_STEER_RETURN_IF_ERROR(AddChunk(std::max(2 * before, needed), chunks));
  }
  Chunk& chunk = chunks.back();
  auto* host = chunk.host.as<std::byte>() + chunk.used_bytes;
  device = chunk.device.as<std::byte>() + chunk.used_bytes;
  chunk.used_bytes += needed;
  if (bytes == 0) return Status::Ok();
  std::memcpy(host, data, bytes);
  return ToStatus(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_),
                  "copying tables to the device");
}

void Uploads::Reset(size_t turn) {
  // The last chunk is the largest: a step like this one fits it alone next time, or the one after.
  std::vector<Chunk>& chunks = chunks_[turn];
  if (chunks.size() > 1) chunks.erase(chunks.begin(), chunks.end() - 1);
  if (!chunks.empty()) chunks.back().used_bytes = 0;
}

}  // namespace llama_steer::cuda
