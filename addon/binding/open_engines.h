// Every open engine of the process, so that none still runs when the process takes itself apart.
#pragma once

#include <memory>

#include "engine/engine.h"

namespace llama_steer {

/// `process.exit` on the main thread runs no cleanup hooks, it calls exit(): engine threads would
/// go on while static objects are destroyed. Closes what is still open then. Thread-safe.
void CloseAtProcessExit(const std::shared_ptr<Engine>& engine);

}  // namespace llama_steer
