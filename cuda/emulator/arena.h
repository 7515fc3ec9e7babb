// Device memory of the emulator. The host cannot touch it while no device work runs, and what was
// never written reads as NaN. AddressSanitizer knows what is allocated, to the byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace llama_steer::cuda::emulator {

class Arena {
 public:
  Arena();
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Aligned to 256 bytes, as by cudaMalloc; null when there is no room.
  void* Allocate(size_t bytes);
  /// False for an address that Allocate did not give.
  bool Free(void* address);
  bool Holds(const void* address) const;
  size_t free_bytes() const { return capacity_ - used_; }
  size_t capacity_bytes() const { return capacity_; }

  /// Lets kernels and copies at the memory, while it lives.
  class Access {
   public:
    explicit Access(Arena& arena);
    ~Access();
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

   private:
    Arena& arena_;
  };

 private:
  struct Region {
    size_t first_page = 0;
    size_t pages = 0;  // one more than needed, so that allocations lie apart
  };
  /// All of it at once: one system call, however many allocations there are.
  void Protect(bool open) const;

  size_t page_bytes_;
  size_t capacity_;
  size_t used_ = 0;  // bytes of pages
  uint8_t* base_ = nullptr;
  size_t next_page_ = 0;
  int open_ = 0;
  std::map<uintptr_t, Region> regions_;             // by address given out
  std::multimap<size_t, size_t> free_page_ranges_;  // pages -> first page
};

Arena& DeviceArena();

}  // namespace llama_steer::cuda::emulator
