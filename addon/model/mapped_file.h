// A read-only file mapping. Nothing is read until it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "support/status.h"

namespace llama_steer {

class MappedFile {
 public:
  static StatusOr<MappedFile> Open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  /// The pages of [offset, offset + size) are not needed any more; they can be read again.
  void Release(uint64_t offset, uint64_t size) const;

 private:
  MappedFile(const std::byte* data, size_t size) : data_(data), size_(size) {}

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace llama_steer
