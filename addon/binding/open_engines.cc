#include "binding/open_engines.h"

#include <cstdlib>
#include <mutex>
#include <vector>

namespace llama_steer {
namespace {

struct OpenEngines {
  std::mutex mutex;
  std::vector<std::weak_ptr<Engine>> engines;
};

/// Never destroyed: it is used while static objects are.
OpenEngines& Registry() {
  static OpenEngines* const registry = new OpenEngines;
  return *registry;
}

void CloseAll() {
  const std::lock_guard lock(Registry().mutex);
  for (const std::weak_ptr<Engine>& weak : Registry().engines) {
    if (const std::shared_ptr<Engine> engine = weak.lock()) engine->Close();
  }
}

}  // namespace

void CloseAtProcessExit(const std::shared_ptr<Engine>& engine) {
  OpenEngines& registry = Registry();
  const std::lock_guard lock(registry.mutex);
  static const bool registered = std::atexit(CloseAll) == 0;
  (void)registered;
  std::erase_if(registry.engines, [](const auto& weak) { return weak.expired(); });
  registry.engines.push_back(engine);
}

}  // namespace llama_steer
