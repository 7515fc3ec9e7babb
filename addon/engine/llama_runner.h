// The ModelRunner of a real checkpoint: backend, weights and KV cache.
#pragma once

#include <memory>

#include "engine/engine.h"
#include "engine/model_runner.h"

namespace llama_steer {

/// Tokens of a KV block.
inline constexpr int32_t kKvBlockTokens = 16;
/// Room for keys and values when EngineOptions::kv_cache_bytes is 0 and the device does not say
/// what it can spare, if the model can use as much.
inline constexpr uint64_t kDefaultKvCacheBytes = 1ull << 30;

/// Blocks that fit the options; kInvalidArgument when there is not even one. `budget_bytes`: what
/// the device can spare, 0 when it does not say.
StatusOr<KvCacheShape> KvShapeOf(const EngineOptions& options, uint64_t budget_bytes);

StatusOr<std::unique_ptr<ModelRunner>> MakeLlamaRunner(const EngineOptions& options,
                                                       const RunnerProgress& progress);

}  // namespace llama_steer
