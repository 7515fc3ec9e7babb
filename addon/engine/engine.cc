#include "engine/engine.h"

#include <utility>

#include "engine/engine_thread.h"
#include "engine/llama_runner.h"

namespace llama_steer {

std::unique_ptr<Engine> Engine::Open(EngineOptions options, EventSink sink) {
  auto factory = [options](const RunnerProgress& progress) {
    return MakeLlamaRunner(options, progress);
  };
  return std::make_unique<EngineThread>(std::move(options), std::move(sink), std::move(factory));
}

}  // namespace llama_steer
