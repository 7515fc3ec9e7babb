// Drives an Engine from a benchmark: whole batches of requests, timed where they are steady.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace llama_steer::bench {

/// What steers the streams of a batch.
enum class BenchSteering : uint8_t {
  kNone,
  kOneLayer,   // one vector on the middle layer, all streams
  kAllLayers,  // one vector on every layer, all streams
  kDistinct,   // a vector of its own for each stream, on every layer
};

struct Timed {
  double seconds = 0.0;
  int64_t tokens = 0;  // in those seconds, over all streams
};

class EngineDriver {
 public:
  /// Opens the engine and waits until it is ready; then holds 16 vectors.
  static StatusOr<std::unique_ptr<EngineDriver>> Open(EngineOptions options);
  ~EngineDriver();

  const ReadyEvent& ready() const { return ready_; }

  /// Submission to first token of one prompt of `tokens` tokens.
  StatusOr<Timed> Prefill(int32_t tokens);
  /// From the moment all streams have a token until the first of them ends.
  StatusOr<Timed> Decode(int32_t streams, int32_t context, int32_t tokens, BenchSteering steering);

 private:
  struct Batch;
  explicit EngineDriver(const LlamaConfig& config);
  void Take(EngineEvent event);
  EngineRequest MakeRequest(int32_t prompt_tokens, int32_t new_tokens);
  void Steer(EngineRequest& request, int32_t stream, BenchSteering steering) const;
  Status PutVectors();
  StatusOr<Batch> Run(std::vector<EngineRequest> requests);

  LlamaConfig config_;
  ReadyEvent ready_;
  std::unique_ptr<Engine> engine_;
  RequestId next_id_ = 1;
  uint32_t next_prompt_ = 1;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool loaded_ = false;
  Status failure_;
  std::unique_ptr<Batch> batch_;  // being run
};

}  // namespace llama_steer::bench
