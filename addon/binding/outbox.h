// Events on their way from the engine thread to JavaScript.
#pragma once

#include <functional>
#include <mutex>
#include <utility>
#include <variant>
#include <vector>

#include "engine/event.h"

namespace llama_steer {

/// Any thread pushes, the JavaScript thread takes everything at once. `wake` is called once for
/// each batch: it is not called again before TakeAll. Credits bound what can lie here.
class Outbox {
 public:
  /// `wake` must not block; it is called on the pushing thread, without the lock.
  explicit Outbox(std::function<void()> wake) : wake_(std::move(wake)) {}

  void Push(EngineEvent event) {
    {
      const std::lock_guard lock(mutex_);
      if (closed_) return;
      // Only the newest progress matters.
      if (!events_.empty() && std::holds_alternative<LoadProgressEvent>(event) &&
          std::holds_alternative<LoadProgressEvent>(events_.back())) {
        events_.back() = std::move(event);
      } else {
        events_.push_back(std::move(event));
      }
      if (std::exchange(awake_, true)) return;
    }
    wake_();
  }

  std::vector<EngineEvent> TakeAll() {
    const std::lock_guard lock(mutex_);
    awake_ = false;
    return std::exchange(events_, {});
  }

  /// Drops what lies here and everything that comes later.
  void Close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    events_.clear();
  }

 private:
  const std::function<void()> wake_;
  std::mutex mutex_;
  std::vector<EngineEvent> events_;
  bool awake_ = false;
  bool closed_ = false;
};

}  // namespace llama_steer
