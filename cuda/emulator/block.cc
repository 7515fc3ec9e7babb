#include "emulator/block.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <string>

#include "emulator/block_state.h"

namespace llama_steer::cuda::emulator {
namespace {

constexpr size_t kSharedAlignment = 128;
constexpr int kPoison = 0xff;  // NaN as float and as bf16, -1 as an integer
/// Blocks of a kernel that begin before the one in front of it has ended.
constexpr size_t kEarlyBlocks = 2;

Block* current_block = nullptr;

/// Blocks that no grid uses: their threads have stacks, which are dear.
std::vector<std::unique_ptr<Block>>& SpareBlocks() {
  static std::vector<std::unique_ptr<Block>> spare;
  return spare;
}
std::unique_ptr<Block> TakeBlock() {
  if (SpareBlocks().empty()) return std::make_unique<Block>();
  std::unique_ptr<Block> block = std::move(SpareBlocks().back());
  SpareBlocks().pop_back();
  return block;
}
/// Threads that have not ended are forgotten.
void GiveBack(std::unique_ptr<Block> block) {
  for (unsigned i = 0; i < block->size; ++i) {
    if (!block->threads[i]->fiber.done()) block->threads[i]->fiber.Abandon();
  }
  SpareBlocks().push_back(std::move(block));
}

int LiveThreads(const Block& block) {
  int live = 0;
  for (unsigned i = 0; i < block.size; ++i) live += block.threads[i]->fiber.done() ? 0 : 1;
  return live;
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

void Begin(Block& block, const Kernel& kernel, const Schedule& schedule, unsigned number) {
  const dim3& grid = kernel.shape.grid;
  const uint3 index = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
  block.body = &kernel.thread;
  block.schedule = schedule;
  block.random.seed(schedule.seed + number);
  block.prior_ended = true;
  Prepare(block, kernel.shape);
  for (unsigned i = 0; i < block.size; ++i) {
    Thread& thread = *block.threads[i];
    thread.context = {.thread_index = {i, 0, 0},
                      .block_index = index,
                      .block_size = {kernel.shape.threads, 1, 1},
                      .grid_size = grid};
    thread.started = false;
    thread.waiting = false;
    thread.open_group.clear();
    thread.groups.clear();
  }
}

/// Until all threads have ended or none can go on.
void Advance(Block& block) {
  current_block = &block;
  std::vector<unsigned> warps = FirstOrder(block.warps.size(), block.schedule);
  std::vector<unsigned> lanes = FirstOrder(kWarp, block.schedule);
  while (RunPass(block, warps, lanes)) {
  }
}

/// False when the block came to a stop before its end.
bool RunToEnd(Block& block) {
  Advance(block);
  if (LiveThreads(block) == 0) return true;
  const uint3& index = block.threads[0]->context.block_index;
  std::fprintf(stderr, "emulator: block %u,%u,%u cannot go on:%s\n", index.x, index.y, index.z,
               Stuck(block).c_str());
  return false;
}

/// Forwards: as early as can be; backwards: never; random: either way.
bool BeginsEarly(const Schedule& schedule) {
  static uint64_t asked = 0;
  if (schedule.order != Order::kRandom) return schedule.order == Order::kForwards;
  return (std::mt19937_64(schedule.seed + ++asked)() & 1) != 0;
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

Block& TheBlock() { return *current_block; }

void Wait(const char* what) {
  Thread* self = TheBlock().running;
  self->waiting = true;
  self->waits_for = what;
  self->fiber.Yield();
}

void Release(Block& block, const char* what) {
  for (unsigned i = 0; i < block.size; ++i) {
    Thread& thread = *block.threads[i];
    if (thread.waiting && thread.waits_for == what) thread.waiting = false;
  }
}

Grid::Grid(std::shared_ptr<const Kernel> kernel)
    : kernel_(std::move(kernel)), schedule_(ScheduleFromEnvironment()) {
  const dim3& grid = kernel_->shape.grid;
  order_ = FirstOrder(static_cast<size_t>(grid.x) * grid.y * grid.z, schedule_);
  if (schedule_.order != Order::kRandom) return;
  std::shuffle(order_.begin(), order_.end(), std::mt19937_64(schedule_.seed));
}

Grid::~Grid() {
  for (std::unique_ptr<Block>& block : early_) GiveBack(std::move(block));
}

void Grid::BeginEarly() {
  if (!BeginsEarly(schedule_)) return;
  for (size_t i = 0; i < std::min(kEarlyBlocks, order_.size()); ++i) {
    early_.push_back(TakeBlock());
    Block& block = *early_.back();
    Begin(block, *kernel_, schedule_, order_[i]);
    block.prior_ended = false;
    Advance(block);
  }
}

bool Grid::Run() {
  for (std::unique_ptr<Block>& block : early_) {
    block->prior_ended = true;
    Release(*block, kPriorKernel);
    if (!RunToEnd(*block)) return false;
  }
  std::unique_ptr<Block> block = TakeBlock();
  bool ended = true;
  for (size_t i = early_.size(); ended && i < order_.size(); ++i) {
    Begin(*block, *kernel_, schedule_, order_[i]);
    ended = RunToEnd(*block);
  }
  GiveBack(std::move(block));
  return ended;
}

const ThreadContext* current_thread = nullptr;

}  // namespace llama_steer::cuda::emulator
