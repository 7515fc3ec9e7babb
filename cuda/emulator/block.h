// Runs the blocks of a launch one after the other, the threads of a block as fibers.
#pragma once

#include <cstdint>
#include <functional>

#include "emulator/device_functions.h"

namespace llama_steer::cuda::emulator {

/// The order in which runnable threads of a block go on, and blocks of a grid run. A warp runs as
/// far ahead of the others as it gets (forwards, backwards), or sometimes does (random). An
/// asynchronous copy arrives when it is waited for (forwards), at once (backwards), or either way
/// (random). A result that changes with the order is a missing barrier.
enum class Order : uint8_t { kForwards, kBackwards, kRandom };

/// From LLAMA_STEER_EMULATOR_ORDER: "forwards" (the default), "backwards", "random" or
/// "random:SEED"; read at every launch.
struct Schedule {
  Order order = Order::kForwards;
  uint64_t seed = 1;
};
Schedule ScheduleFromEnvironment();

/// False when the block came to a stop: threads wait for others that have ended or wait elsewhere.
/// The reason goes to standard error.
bool RunGrid(const KernelShape& shape, const std::function<void()>& thread);

}  // namespace llama_steer::cuda::emulator
