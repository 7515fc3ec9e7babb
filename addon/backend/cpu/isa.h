// Which instruction set the kernels run on. Highway compiles every kernel for several targets and
// picks one at run time; the choice is one for the process.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "support/status.h"

namespace llama_steer::cpu {

/// "avx2", "avx512", "neon", … of the kernels in use.
std::string IsaName();

/// Names that SelectIsa takes on this machine, best first.
std::vector<std::string> AvailableIsas();

/// "auto" takes the best one; anything the machine or the build lacks is refused.
Status SelectIsa(std::string_view name);

}  // namespace llama_steer::cpu
