// Decode passes as CUDA graphs: one a shape, recorded when the shape comes for the second time.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>

#include "device_memory.h"
#include "pass_tables.h"

namespace llama_steer::cuda {

/// What a graph belongs to.
struct PassKey {
  uint64_t model = 0;
  const KvCache* cache = nullptr;
  PassShape shape;
  auto operator<=>(const PassKey&) const = default;
};

/// Addresses, and what else a graph has within it, of buffers that may be replaced.
using PassMemory = std::array<uint64_t, 9>;

class PassGraphs {
 public:
  PassGraphs();
  ~PassGraphs();
  PassGraphs(const PassGraphs&) = delete;
  PassGraphs& operator=(const PassGraphs&) = delete;

  /// False when LLAMA_STEER_CUDA_GRAPHS is "off".
  bool enabled() const { return enabled_; }

  /// Begins a pass. True: its graph was started. False: the operations follow, then End();
  /// they are recorded if the pass before this one of the same key left `memory` as it is now.
  StatusOr<bool> Begin(const PassKey& key, const PassMemory& memory, const Stream& stream);
  /// Ends a pass whose operations were called, all of them or, after an error, some: starts what
  /// was recorded. `memory`: as it is now.
  Status End(const PassMemory& memory, bool complete, const Stream& stream);

 private:
  struct Entry {
    std::optional<PassMemory> memory;
    cudaGraphExec_t exec = nullptr;
    uint64_t last_use = 0;
  };
  Entry& EntryOf(const PassKey& key);
  static void Drop(Entry& entry);

  bool enabled_;
  std::map<PassKey, Entry> entries_;
  Entry* current_ = nullptr;
  bool recording_ = false;
  uint64_t uses_ = 0;
};

}  // namespace llama_steer::cuda
