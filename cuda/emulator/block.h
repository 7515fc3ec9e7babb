// Runs the blocks of a launch one after the other, the threads of a block as fibers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "emulator/device_functions.h"

namespace llama_steer::cuda::emulator {

/// The order in which runnable threads of a block go on, and blocks of a grid run. A warp runs as
/// far ahead of the others as it gets (forwards, backwards), or sometimes does (random). An
/// asynchronous copy arrives when it is waited for (forwards), at once (backwards), or either way
/// (random), and so does a kernel that may overlap the one before it begin. A result that changes
/// with the order is a missing barrier, or a wait that is missing or comes too late.
enum class Order : uint8_t { kForwards, kBackwards, kRandom };

/// From LLAMA_STEER_EMULATOR_ORDER: "forwards" (the default), "backwards", "random" or
/// "random:SEED"; read at every launch.
struct Schedule {
  Order order = Order::kForwards;
  uint64_t seed = 1;
};
Schedule ScheduleFromEnvironment();

struct Kernel {
  KernelShape shape;
  std::function<void()> thread;
};

struct Block;

/// One launch. A kernel that waits for the one before it (WaitForPrior) may begin earlier; what it
/// then reads of the other's results is old, which shows in its own.
class Grid {
 public:
  explicit Grid(std::shared_ptr<const Kernel> kernel);
  ~Grid();
  Grid(const Grid&) = delete;
  Grid& operator=(const Grid&) = delete;

  /// The first blocks, until they wait for the kernel before.
  void BeginEarly();
  /// To the end. False when a block came to a stop: threads wait for others that have ended or wait
  /// elsewhere. The reason goes to standard error.
  bool Run();

 private:
  std::shared_ptr<const Kernel> kernel_;
  Schedule schedule_;
  std::vector<unsigned> order_;                // of blocks
  std::vector<std::unique_ptr<Block>> early_;  // the first ones, if they have begun
};

}  // namespace llama_steer::cuda::emulator
