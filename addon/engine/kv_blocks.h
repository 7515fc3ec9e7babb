// Reference counts of the KV blocks. A block is
//   used    held by at least one sequence,
//   parked  held by nobody, its content still of use to the prefix cache, or
//   free.
// Pure bookkeeping: knows no device, no tokens and no requests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace llama_steer {

inline constexpr int32_t kNoBlock = -1;

class KvBlocks {
 public:
  explicit KvBlocks(int32_t blocks);

  int32_t total() const { return static_cast<int32_t>(nodes_.size()); }
  int32_t parked() const { return parked_; }
  int32_t used() const { return total() - available(); }
  /// What Take() can still give: free and parked blocks.
  int32_t available() const { return parked_ + static_cast<int32_t>(free_.size()); }
  int32_t references(int32_t block) const { return nodes_[Index(block)].references; }

  struct Taken {
    int32_t block = kNoBlock;
    bool was_parked = false;  // its content is lost; the prefix cache must forget it
  };
  /// A block with one reference: a free one, or else the parked one that was parked first.
  Taken Take();

  /// Adds a reference to a used or parked block.
  void Retain(int32_t block);

  /// Gives a reference back. With the last one the block is parked when `keep`, else free.
  void Release(int32_t block, bool keep);

 private:
  struct Node {
    int32_t references = 0;
    int32_t older = kNoBlock;  // neighbours in the list of parked blocks
    int32_t newer = kNoBlock;
  };
  static size_t Index(int32_t block) { return static_cast<size_t>(block); }
  void Park(int32_t block);
  void Unpark(int32_t block);

  std::vector<Node> nodes_;
  std::vector<int32_t> free_;
  int32_t oldest_ = kNoBlock;
  int32_t newest_ = kNoBlock;
  int32_t parked_ = 0;
};

}  // namespace llama_steer
