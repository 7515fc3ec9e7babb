#include "emulator/block.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "emulator/fiber.h"

namespace llama_steer::cuda::emulator {
namespace {

constexpr int kWarp = 32;
constexpr int kNamedBarriers = 16;  // barrier 0 is __syncthreads
constexpr size_t kSharedAlignment = 128;
constexpr int kPoison = 0xff;  // NaN as float and as bf16, -1 as an integer

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
  Thread* running = nullptr;
  Schedule schedule;
  std::mt19937_64 random;
};

/// One at a time: the runtime holds its lock while device work runs.
Block& TheBlock() {
  static Block block;
  return block;
}

int ThreadNumber() { return static_cast<int>(TheBlock().running->context.thread_index.x); }
Warp& OwnWarp() { return TheBlock().warps[static_cast<size_t>(ThreadNumber() / kWarp)]; }

/// Until `waiting` is cleared by another thread.
void Wait(const char* what) {
  Thread* self = TheBlock().running;
  self->waiting = true;
  self->waits_for = what;
  self->fiber.Yield();
}

int LiveThreads(const Block& block) {
  int live = 0;
  for (unsigned i = 0; i < block.size; ++i) live += block.threads[i]->fiber.done() ? 0 : 1;
  return live;
}

void Release(Block& block, const char* what) {
  for (unsigned i = 0; i < block.size; ++i) {
    Thread& thread = *block.threads[i];
    if (thread.waiting && thread.waits_for == what) thread.waiting = false;
  }
}

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

void RunThread(void* argument) {
  auto* block = static_cast<Block*>(argument);
  (*block->body)();
}

void Run(Block& block, Thread& thread) {
  block.running = &thread;
  thread.started = true;
  current_thread = &thread.context;
  thread.fiber.Resume(RunThread, &block);
}

std::string Stuck(const Block& block) {
  std::string text;
  for (unsigned i = 0; i < block.size; ++i) {
    const Thread& thread = *block.threads[i];
    if (thread.fiber.done()) continue;
    if (text.size() > 200) return text + " ...";
    text += " thread " + std::to_string(i) + " at " + thread.waits_for + ";";
  }
  return text;
}

std::vector<unsigned> FirstOrder(size_t count, const Schedule& schedule) {
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  if (schedule.order == Order::kBackwards) std::reverse(order.begin(), order.end());
  return order;
}
void NextOrder(std::vector<unsigned>& order, Block& block) {
  if (block.schedule.order == Order::kRandom) {
    std::shuffle(order.begin(), order.end(), block.random);
  }
}

bool CanGoOn(const Thread& thread) {
  return !thread.waiting && !(thread.started && thread.fiber.done());
}

/// Runs the threads of a warp, again and again if it is `ahead`, until they wait for other warps.
/// False when none could go on.
bool RunWarp(Block& block, unsigned warp, std::vector<unsigned>& lanes, bool ahead) {
  bool any = false;
  bool progress = true;
  while (progress) {
    progress = false;
    NextOrder(lanes, block);
    for (const unsigned lane : lanes) {
      const unsigned i = warp * kWarp + lane;
      if (i >= block.size || !CanGoOn(*block.threads[i])) continue;
      Run(block, *block.threads[i]);
      any = progress = true;
    }
    if (!ahead) break;
  }
  return any;
}

/// One pass over the warps: each as far ahead of the others as it gets, or in step with them.
bool RunPass(Block& block, std::vector<unsigned>& warps, std::vector<unsigned>& lanes) {
  bool any = false;
  NextOrder(warps, block);
  for (const unsigned warp : warps) {
    const bool ahead = block.schedule.order != Order::kRandom || (block.random() & 1) != 0;
    any = RunWarp(block, warp, lanes, ahead) || any;
  }
  return any;
}

void Prepare(Block& block, const KernelShape& shape) {
  block.size = shape.threads;
  while (block.threads.size() < block.size) block.threads.push_back(std::make_unique<Thread>());
  block.warps.assign((block.size + kWarp - 1) / kWarp, {});
  block.barriers.fill({});
  // Exactly as much as was asked for: AddressSanitizer then sees the first byte too far.
  void* memory = nullptr;
  if (posix_memalign(&memory, kSharedAlignment, std::max<size_t>(shape.shared_bytes, 1)) != 0) {
    std::abort();
  }
  std::memset(memory, kPoison, shape.shared_bytes);
  block.shared.reset(static_cast<std::byte*>(memory));
}

bool RunBlock(Block& block, const KernelShape& shape, const uint3& index) {
  Prepare(block, shape);
  for (unsigned i = 0; i < block.size; ++i) {
    Thread& thread = *block.threads[i];
    thread.context = {.thread_index = {i, 0, 0},
                      .block_index = index,
                      .block_size = {shape.threads, 1, 1},
                      .grid_size = shape.grid};
    thread.started = false;
    thread.waiting = false;
    thread.open_group.clear();
    thread.groups.clear();
  }
  std::vector<unsigned> warps = FirstOrder(block.warps.size(), block.schedule);
  std::vector<unsigned> lanes = FirstOrder(kWarp, block.schedule);
  for (;;) {
    if (RunPass(block, warps, lanes)) continue;
    if (LiveThreads(block) == 0) return true;
    std::fprintf(stderr, "emulator: block %u,%u,%u cannot go on:%s\n", index.x, index.y, index.z,
                 Stuck(block).c_str());
    for (unsigned i = 0; i < block.size; ++i) {
      if (!block.threads[i]->fiber.done()) block.threads[i]->fiber.Abandon();
    }
    return false;
  }
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

Schedule ScheduleFromEnvironment() {
  const char* text = std::getenv("LLAMA_STEER_EMULATOR_ORDER");
  const std::string order = text == nullptr ? "forwards" : text;
  if (order == "backwards") return {.order = Order::kBackwards};
  if (!order.starts_with("random")) return {};
  Schedule schedule{.order = Order::kRandom};
  if (order.starts_with("random:")) {
    schedule.seed = std::strtoull(order.c_str() + sizeof("random:") - 1, nullptr, 10);
  }
  return schedule;
}

bool RunGrid(const KernelShape& shape, const std::function<void()>& thread) {
  Block& block = TheBlock();
  block.body = &thread;
  block.schedule = ScheduleFromEnvironment();
  block.random.seed(block.schedule.seed);
  std::vector<unsigned> order =
      FirstOrder(static_cast<size_t>(shape.grid.x) * shape.grid.y * shape.grid.z, block.schedule);
  NextOrder(order, block);
  for (const unsigned number : order) {
    const uint3 index = {number % shape.grid.x, number / shape.grid.x % shape.grid.y,
                         number / shape.grid.x / shape.grid.y};
    if (!RunBlock(block, shape, index)) return false;
  }
  return true;
}

const ThreadContext* current_thread = nullptr;

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
