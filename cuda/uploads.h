// Host tables on their way to the device. Those of a step share one piece of pinned memory and its
// mirror on the device, one of each for every turn, which grow until the largest step fits, and
// never again.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "device_memory.h"

namespace llama_steer::cuda {

class Uploads {
 public:
  explicit Uploads(const Stream& stream) : stream_(stream) {}

  /// Copies the table; the pointer is good until Reset() of this turn. The host may change its own
  /// at once.
  template <class T>
  Status Put(std::span<const T> table, const T*& device) {
    void* address = nullptr;
    LLAMA_STEER_RETURN_IF_ERROR(PutBytes(table.data(), table.size_bytes(), address));
    device = static_cast<const T*>(address);
    return Status::Ok();
  }

  /// The tables of the next step follow.
  void EndTurn() { turn_ = (turn_ + 1) % kTurns; }
  /// Once all copies of a turn have been carried out: its memory is used anew.
  void Reset(size_t turn);

 private:
  struct Chunk {
    PinnedBuffer host;
    DeviceBuffer device;
    size_t used_bytes = 0;
  };
  Status PutBytes(const void* data, size_t bytes, void*& device);
  static Status AddChunk(size_t bytes, std::vector<Chunk>& chunks);

  const Stream& stream_;
  size_t turn_ = 0;
  std::array<std::vector<Chunk>, kTurns> chunks_;  // one, but in a step that outgrows it
};

}  // namespace llama_steer::cuda
