// Which instruction set the kernels run on. Highway compiles every kernel for several targets and
// picks one at run time; the choice is one for the process.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "support/status.h"

namespace llama_steer::cpu {

/// Names that HoldIsa takes on this machine, best first.
std::vector<std::string> AvailableIsas();

/// A backend's share in the choice, kept for as long as it lives.
using IsaHold = std::shared_ptr<const std::string>;

/// "auto" takes the best one; anything the machine or the build lacks is refused, and so is any
/// other set than the one that living backends use: it would change their results under them.
StatusOr<IsaHold> HoldIsa(std::string_view name);

}  // namespace llama_steer::cpu
