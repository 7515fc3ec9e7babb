// The engine: one thread that owns the model, the KV cache and every running request.
// Thread-safe: every method may be called from any thread at any time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/event.h"
#include "engine/request.h"
#include "model/llama_config.h"

namespace llama_steer {

struct EngineOptions {
  LlamaConfig config;
  CheckpointFiles checkpoint;
  std::string device = "auto";   // "auto", "cpu", "cuda", "cuda:N"
  std::string cpu_isa = "auto";  // "auto", "avx2", "avx512", "neon"
  WeightFormat weight_format = WeightFormat::kAsStored;
  DType kv_dtype = DType::kBF16;  // kBF16 or kF32
  int32_t threads = 0;            // 0: one for each core
  uint64_t kv_cache_bytes = 0;
  int32_t max_batch_tokens = 512;  // rows of one step at most
  int32_t max_running_sequences = 64;
  int32_t max_steerings_per_request = 16;
  uint64_t capture_staging_bytes = 64ull << 20;
  bool prefix_cache = true;
  std::optional<AdapterFiles> merged_adapter;  // added to the weights as they are loaded
  uint64_t max_adapter_bytes = 1ull << 30;     // of all adapters on the device
  /// UTF-8 bytes of every token as it stands in text: token t is bytes
  /// [token_offsets[t], token_offsets[t + 1]). Both empty: no request may look for text.
  std::vector<uint8_t> token_bytes;
  std::vector<uint32_t> token_offsets;  // [vocab_size + 1]
};

/// Counters since the start, gauges of now.
struct EngineStats {
  uint32_t waiting_requests = 0;
  uint32_t running_requests = 0;
  uint64_t waiting_prompt_tokens = 0;
  uint32_t kv_blocks = 0;
  uint32_t kv_blocks_used = 0;    // held by running requests
  uint32_t kv_blocks_cached = 0;  // unreferenced, reusable
  uint64_t steps = 0;
  double last_step_age_seconds = 0.0;  // 0 while there is nothing to do
  uint64_t preemptions = 0;
  uint64_t prompt_tokens = 0;
  uint64_t cached_prompt_tokens = 0;
  uint64_t generated_tokens = 0;
  uint64_t nonfinite_rows = 0;
  uint64_t capture_bytes = 0;
  uint32_t resident_vectors = 0;
  uint64_t resident_vector_bytes = 0;
  uint32_t resident_adapters = 0;
  uint64_t resident_adapter_bytes = 0;
  uint64_t gate_evaluations = 0;  // of requests that have ended
  uint64_t gate_fired = 0;
  std::vector<uint32_t> recent_batch_tokens;  // rows of each step since the last call (newest 4096)
};

/// Called on the engine thread (or on a caller's thread for a refusal inside Submit). Must not
/// block and must not call back into the engine.
using EventSink = std::function<void(EngineEvent)>;

class Engine {
 public:
  /// Starts the thread and returns at once; loading is told by LoadProgressEvent, then ReadyEvent
  /// or FatalEvent.
  static std::unique_ptr<Engine> Open(EngineOptions options, EventSink sink);
  virtual ~Engine() = default;  // closes

  /// Ends with exactly one DoneEvent, a refusal included.
  virtual void Submit(EngineRequest request) = 0;
  /// Ends a request within a step; `completion` < 0: all its completions.
  virtual void Cancel(RequestId id, int32_t completion) = 0;
  virtual void Grant(RequestId id, uint32_t credits, uint64_t capture_bytes) = 0;
  /// Keeps a vector on the device until DropVector; requests in flight keep what they began with.
  virtual Status PutVector(VectorRows vector) = 0;
  virtual void DropVector(VectorHandle handle) = 0;
  /// Keeps an adapter on the device until DropAdapter; requests in flight keep what they began
  /// with. Reads the files on the calling thread.
  virtual Status PutAdapter(AdapterFiles adapter) = 0;
  virtual void DropAdapter(AdapterHandle handle) = 0;
  virtual EngineStats Stats() = 0;
  /// Ends every request with kCancelled and joins the thread within one step. Idempotent.
  virtual void Close() = 0;
};

}  // namespace llama_steer
