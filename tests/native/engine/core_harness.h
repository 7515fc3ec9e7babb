// Runs EngineCore without a thread over a model of the test's choice.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "engine/ahead_runner.h"
#include "engine/core.h"
#include "engine/fake_model.h"
#include "engine/transcript.h"

namespace llama_steer {

inline constexpr int32_t kTestLayers = 4;
inline constexpr int32_t kTestVectors = 4;
inline constexpr int32_t kTestAdapters = 2;

EngineOptions TestOptions();
/// Texts of tokens: token t is one of "a" to "d", or two of them, so that a short text is soon met.
void AddTokenTexts(EngineOptions& options);
/// The text of some tokens.
std::vector<uint8_t> TextOf(const EngineOptions& options, std::span<const uint32_t> tokens);
std::vector<uint8_t> Bytes(std::string_view text);
/// Vectors with handles 1 to kTestVectors, each in all layers.
VectorRows TestVector(const LlamaConfig& config, VectorHandle handle);

/// An adapter in memory: 1 changes every projection, 2 some of them.
class TestLora {
 public:
  TestLora(const LlamaConfig& config, AdapterHandle handle);
  const MappedLora& lora() const { return lora_; }
  Digest digest() const;

 private:
  TensorView Factor(int64_t rows, int64_t cols);

  AdapterHandle handle_;
  std::vector<std::vector<float>> values_;
  MappedLora lora_;
};

/// A request for `new_tokens` tokens after a prompt of `prompt_tokens` tokens made from `seed`.
EngineRequest TestRequest(RequestId id, int32_t prompt_tokens, uint32_t new_tokens,
                          uint32_t seed = 1);
SteeringParams TestSteering(VectorHandle vector, std::vector<int32_t> layers,
                            int32_t position_begin = 0, int32_t position_end = kOpenEnd);
/// TestRequest with steerings.
EngineRequest SteeredRequest(RequestId id, int32_t prompt_tokens, uint32_t new_tokens,
                             std::vector<SteeringParams> steering);

class CoreHarness {
 public:
  CoreHarness(const EngineOptions& options, std::unique_ptr<ModelRunner> runner);
  /// Over a FakeModel.
  CoreHarness(const EngineOptions& options, int32_t blocks, int32_t block_tokens = 16);
  /// Over a FakeModel that runs ahead.
  CoreHarness(const EngineOptions& options, int32_t blocks, Pace pace);

  EngineCore& core() { return *core_; }
  FakeModel& fake() { return *fake_; }
  /// Of a harness that was made with a pace.
  AheadRunner& ahead() { return *ahead_; }
  Transcript& transcript() { return transcript_; }
  const Transcript& transcript() const { return transcript_; }

  void Submit(EngineRequest request) { core_->Submit(std::move(request), 1); }
  /// One step; fails the test on a device fault.
  bool Step();
  /// Until nothing can run.
  void Run();
  RequestRecord& Run(EngineRequest request);
  EngineStats Stats() const;
  /// No complaint, nothing running, no block held.
  void ExpectIdle();

 private:
  FakeModel* fake_ = nullptr;
  AheadRunner* ahead_ = nullptr;
  std::unique_ptr<ModelRunner> runner_;
  Transcript transcript_;
  EventSink sink_;
  std::unique_ptr<EngineCore> core_;
};

/// What a request gets with an engine to itself: in one chunk, without a prefix cache.
RequestRecord RunAlone(const EngineRequest& request);

}  // namespace llama_steer
