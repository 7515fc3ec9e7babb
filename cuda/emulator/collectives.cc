// Where the threads of a block meet: barriers, collectives of a warp, asynchronous copies, and the
// end of the kernel before.
#include <cstring>

#include "emulator/block_state.h"

namespace llama_steer::cuda::emulator {
namespace {

int ThreadNumber() { return static_cast<int>(TheBlock().running->context.thread_index.x); }
Warp& OwnWarp() { return TheBlock().warps[static_cast<size_t>(ThreadNumber() / kWarp)]; }

// One address a barrier, so that waiting threads can be told apart.
constexpr std::array<const char*, kNamedBarriers> kBarrierNames = {
    "__syncthreads", "barrier 1",  "barrier 2",  "barrier 3", "barrier 4",  "barrier 5",
    "barrier 6",     "barrier 7",  "barrier 8",  "barrier 9", "barrier 10", "barrier 11",
    "barrier 12",    "barrier 13", "barrier 14", "barrier 15"};

bool PassBarrier(int id, int expected, bool vote) {
  Block& block = TheBlock();
  Barrier& barrier = block.barriers[static_cast<size_t>(id)];
  barrier.expected = expected;
  barrier.any = barrier.any || vote;
  if (++barrier.arrived == expected) {
    barrier.any_of_last = barrier.any;
    barrier.any = false;
    barrier.arrived = 0;
    Release(block, kBarrierNames[static_cast<size_t>(id)]);
  } else {
    Wait(kBarrierNames[static_cast<size_t>(id)]);
  }
  // The next round cannot complete before this thread arrives there.
  return barrier.any_of_last;
}

void CarryOut(const AsyncCopy& copy) {
  if (copy.from == nullptr) {
    std::memset(copy.to, 0, 16);
  } else {
    std::memcpy(copy.to, copy.from, 16);
  }
}

bool ArrivesAtOnce(Block& block) {
  if (block.schedule.order == Order::kRandom) return (block.random() & 1) != 0;
  return block.schedule.order == Order::kBackwards;
}

}  // namespace

void* SharedMemoryOfBlock() { return TheBlock().shared.get(); }
int Lane() { return ThreadNumber() % kWarp; }

void SyncThreads() { PassBarrier(0, static_cast<int>(TheBlock().size), false); }
bool SyncThreadsOr(bool value) { return PassBarrier(0, static_cast<int>(TheBlock().size), value); }
void SyncNamedBarrier(int id, int threads) { PassBarrier(id, threads, false); }

void WarpExchange(unsigned mask, const void* operand, size_t bytes) {
  static constexpr const char* kWaits = "a warp collective";
  Warp& warp = OwnWarp();
  const int lane = Lane();
  Exchange& exchange = warp.exchanges[warp.generation % 2];
  std::memcpy(exchange.operands[static_cast<size_t>(lane)].data(), operand, bytes);
  exchange.arrived |= 1u << lane;
  if (exchange.arrived == mask) {
    exchange.arrived = 0;
    const uint64_t generation = ++warp.generation;
    Block& block = TheBlock();
    const auto first = static_cast<unsigned>(ThreadNumber() - lane);
    for (unsigned i = 0; i < kWarp && first + i < block.size; ++i) {
      if (((mask >> i) & 1u) == 0) continue;
      warp.read_generation[i] = generation;
      if (block.threads[first + i]->waits_for == kWaits) block.threads[first + i]->waiting = false;
    }
  } else {
    Wait(kWaits);
  }
}

const void* OperandOf(int lane) {
  const Warp& warp = OwnWarp();
  const uint64_t generation = warp.read_generation[static_cast<size_t>(Lane())];
  return warp.exchanges[(generation - 1) % 2].operands[static_cast<size_t>(lane)].data();
}

void SyncWarp(unsigned mask) {
  const char nothing = 0;
  WarpExchange(mask, &nothing, sizeof(nothing));
}

void WaitForPrior() {
  while (!TheBlock().prior_ended) Wait(kPriorKernel);
}

void CopyAsync16(void* shared, const void* global, bool valid) {
  Block& block = TheBlock();
  const AsyncCopy copy{shared, valid ? global : nullptr};
  if (ArrivesAtOnce(block)) {
    CarryOut(copy);
  } else {
    block.running->open_group.push_back(copy);
  }
}
void CopyAsyncCommit() {
  Thread& self = *TheBlock().running;
  self.groups.push_back(std::move(self.open_group));
  self.open_group.clear();
}
void CopyAsyncWait(int pending) {
  Thread& self = *TheBlock().running;
  while (self.groups.size() > static_cast<size_t>(pending)) {
    for (const AsyncCopy& copy : self.groups.front()) CarryOut(copy);
    self.groups.erase(self.groups.begin());
  }
}

}  // namespace llama_steer::cuda::emulator
