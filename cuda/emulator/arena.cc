#include "emulator/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace llama_steer::cuda::emulator {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kAddressBytes = size_t{8} << 30;  // of address space, not of memory
constexpr size_t kDefaultCapacity = size_t{1} << 30;
constexpr int kPoison = 0xff;  // NaN as float and as bf16

size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

Arena::Arena() : page_bytes_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
  const char* asked = std::getenv("LLAMA_STEER_EMULATOR_MEMORY_BYTES");
  capacity_ = asked == nullptr ? kDefaultCapacity : std::strtoull(asked, nullptr, 10);
  void* memory =
      mmap(nullptr, kAddressBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::fprintf(stderr, "emulator: no address space for device memory\n");
    std::abort();
  }
  base_ = static_cast<uint8_t*>(memory);
}

Arena::~Arena() { munmap(base_, kAddressBytes); }

void Arena::Protect(bool open) const {
  mprotect(base_, next_page_ * page_bytes_, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

void* Arena::Allocate(size_t bytes) {
  if (bytes > capacity_) return nullptr;
  Region region;
  region.pages = RoundUp(std::max<size_t>(bytes, 1), page_bytes_) / page_bytes_ + 1;
  if (region.pages * page_bytes_ > free_bytes()) return nullptr;
  const auto reusable = free_page_ranges_.find(region.pages);
  if (reusable != free_page_ranges_.end()) {
    region.first_page = reusable->second;
    free_page_ranges_.erase(reusable);
  } else {
    if ((next_page_ + region.pages) * page_bytes_ > kAddressBytes) return nullptr;
    region.first_page = next_page_;
    next_page_ += region.pages;
  }
  used_ += region.pages * page_bytes_;
  uint8_t* first = base_ + region.first_page * page_bytes_;
  const size_t room = (region.pages - 1) * page_bytes_;
  const size_t padded = RoundUp(std::max<size_t>(bytes, 1), kAlignment);
  uint8_t* address = first + (room - padded);
  mprotect(first, region.pages * page_bytes_, PROT_READ | PROT_WRITE);
  ASAN_UNPOISON_MEMORY_REGION(first, room);
  std::memset(first, kPoison, room);
  ASAN_POISON_MEMORY_REGION(first, region.pages * page_bytes_);
  ASAN_UNPOISON_MEMORY_REGION(address, bytes);
  if (open_ == 0) mprotect(first, region.pages * page_bytes_, PROT_NONE);
  regions_.emplace(reinterpret_cast<uintptr_t>(address), region);
  return address;
}

bool Arena::Free(void* address) {
  const auto found = regions_.find(reinterpret_cast<uintptr_t>(address));
  if (found == regions_.end()) return false;
  const Region& region = found->second;
  uint8_t* first = base_ + region.first_page * page_bytes_;
  const size_t room = (region.pages - 1) * page_bytes_;
  madvise(first, room, MADV_DONTNEED);
  ASAN_POISON_MEMORY_REGION(first, room);
  used_ -= region.pages * page_bytes_;
  free_page_ranges_.emplace(region.pages, region.first_page);
  regions_.erase(found);
  return true;
}

bool Arena::Holds(const void* address) const {
  const auto* byte = static_cast<const uint8_t*>(address);
  return byte >= base_ && byte < base_ + kAddressBytes;
}

Arena::Access::Access(Arena& arena) : arena_(arena) {
  if (arena_.open_++ > 0) return;
  arena_.Protect(true);
}

Arena::Access::~Access() {
  if (--arena_.open_ > 0) return;
  arena_.Protect(false);
}

Arena& DeviceArena() {
  static Arena arena;
  return arena;
}

}  // namespace llama_steer::cuda::emulator
