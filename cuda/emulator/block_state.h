// What the emulator knows of the threads of a block; shared by block.cc, which runs them, and
// collectives.cc, in which they meet.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "emulator/block.h"
#include "emulator/fiber.h"

namespace llama_steer::cuda::emulator {

inline constexpr int kWarp = 32;
inline constexpr int kNamedBarriers = 16;  // barrier 0 is __syncthreads

struct AsyncCopy {
  void* to = nullptr;
  const void* from = nullptr;  // null: zeros
};

struct Thread {
  ThreadContext context;
  Fiber fiber;
  bool started = false;
  bool waiting = false;
  const char* waits_for = "";
  std::vector<AsyncCopy> open_group;
  std::vector<std::vector<AsyncCopy>> groups;
};

/// Operands of one collective. Two of them in turn: who arrives at the next may not disturb those
/// who still read this one.
struct Exchange {
  std::array<std::array<std::byte, kOperandBytes>, kWarp> operands;
  unsigned arrived = 0;
};

struct Warp {
  std::array<Exchange, 2> exchanges;
  uint64_t generation = 0;
  std::array<uint64_t, kWarp> read_generation{};  // of the collective each lane finished last
};

struct Barrier {
  int arrived = 0;
  int expected = 0;
  bool any = false;          // of the votes of this round
  bool any_of_last = false;  // of the round before
};

struct Block {
  std::vector<std::unique_ptr<Thread>> threads;  // a pool; the first `size` are in use
  unsigned size = 0;
  std::vector<Warp> warps;
  std::array<Barrier, kNamedBarriers> barriers;
  std::unique_ptr<std::byte, decltype(&std::free)> shared{nullptr, &std::free};
  const std::function<void()>* body = nullptr;
  bool prior_ended = true;  // the kernel before this one
  Thread* running = nullptr;
  Schedule schedule;
  std::mt19937_64 random;
};

/// The block whose threads run, one at a time: the runtime holds its lock while device work runs.
Block& TheBlock();
/// Of the running thread, until Release of the same address or until `waiting` is cleared.
void Wait(const char* what);
void Release(Block& block, const char* what);
inline constexpr const char kPriorKernel[] = "the kernel before";

}  // namespace llama_steer::cuda::emulator
