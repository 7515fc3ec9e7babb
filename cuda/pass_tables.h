// The tables of one decode pass at addresses that depend on its shape alone, so that a graph that
// was recorded with them can be replayed with other contents.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>

#include "backend/backend.h"
#include "device_memory.h"
#include "kernels/residual_steer_norm.h"
#include "step_tables.h"

namespace llama_steer::cuda {

/// What a graph is recorded for. Passes with fewer rows are padded with rows of no sequence.
struct PassShape {
  int32_t rows = 0;          // 1 to 8, then multiples of 8
  int32_t splits = 0;        // of a context, a power of two
  int32_t layers = 0;        // of the steering tables; 0: nothing is steered
  int32_t proof_stride = 0;  // of the steering tables
  auto operator<=>(const PassShape&) const = default;
};

/// Nothing for a pass that has to be taken operation by operation: one with prompts, gates,
/// capture, probes or adapters, with more rows than graphs are made for, or one that wants few of
/// its logits.
std::optional<PassShape> ShapeOf(const ForwardPass& pass);

class PassTables {
 public:
  /// Starts copying the tables of a pass of that shape, padded. `ops`: of its steering.
  Status Upload(const ForwardPass& pass, const PassShape& shape, std::span<const DeviceSteerOp> ops,
                const Stream& stream);

  void EndTurn() { turn_ = (turn_ + 1) % kTurns; }

  const DeviceStep& step() const { return step_; }
  const DeviceAttentionItems& attention() const { return items_; }
  const DeviceSteerTables& steering() const { return steering_; }
  const int32_t* logit_rows() const { return logit_rows_; }
  const void* address() const { return device_.as<void>(); }

 private:
  template <class T>
  std::span<T> Take(size_t count);
  template <class T>
  const T* OnDevice(std::span<T> host) const;
  void WriteStep(const ForwardPass& pass, const PassShape& shape);
  void WriteSteering(const SteerTables& tables, const PassShape& shape,
                     std::span<const DeviceSteerOp> ops);

  size_t turn_ = 0;
  std::array<PinnedBuffer, kTurns> host_;
  DeviceBuffer device_;
  size_t used_bytes_ = 0;
  DeviceStep step_;
  DeviceAttentionItems items_;
  DeviceSteerTables steering_;
  const int32_t* logit_rows_ = nullptr;
};

}  // namespace llama_steer::cuda
