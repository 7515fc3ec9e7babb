#include "pass_graphs.h"

#include <algorithm>

#include "switches.h"

namespace llama_steer::cuda {
namespace {

/// An 8B model has some 330 launches a pass: a few hundred kilobytes a graph.
constexpr size_t kMaxGraphs = 128;

}  // namespace

PassGraphs::PassGraphs() : enabled_(IsSwitchedOn(kGraphsVariable)) {}

PassGraphs::~PassGraphs() {
  for (auto& [key, entry] : entries_) Drop(entry);
}

void PassGraphs::Drop(Entry& entry) {
  if (entry.exec != nullptr) cudaGraphExecDestroy(entry.exec);
  entry.exec = nullptr;
}

PassGraphs::Entry& PassGraphs::EntryOf(const PassKey& key) {
  const auto found = entries_.find(key);
  if (found == entries_.end() && entries_.size() == kMaxGraphs) {
    const auto oldest = std::ranges::min_element(
        entries_, {}, [](const auto& entry) { return entry.second.last_use; });
    Drop(oldest->second);
    entries_.erase(oldest);
  }
  Entry& entry = entries_[key];
  entry.last_use = ++uses_;
  return entry;
}

StatusOr<bool> PassGraphs::Begin(const PassKey& key, const PassMemory& memory,
                                 const Stream& stream) {
  Entry& entry = EntryOf(key);
  if (entry.memory != memory) Drop(entry);
  if (entry.exec != nullptr) {
    const Status started = ToStatus(cudaGraphLaunch(entry.exec, stream), "starting a graph");
    if (!started.ok()) return started;
    return true;
  }
  current_ = &entry;
  recording_ = entry.memory == memory;
  if (recording_) {
    const Status began = ToStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                                  "recording a graph");
    if (!began.ok()) return began;
  }
  return false;
}

Status PassGraphs::End(const PassMemory& memory, bool complete, const Stream& stream) {
  if (current_ == nullptr) return Status::Ok();
  Entry& entry = *current_;
  current_ = nullptr;
  entry.memory = memory;
  if (!recording_) return Status::Ok();
  recording_ = false;
  const char* what = "recording a graph";
  cudaGraph_t graph = nullptr;
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaStreamEndCapture(stream, &graph), what));
  const cudaError_t made = complete ? cudaGraphInstantiate(&entry.exec, graph, 0) : cudaSuccess;
  cudaGraphDestroy(graph);
  if (made != cudaSuccess) entry.exec = nullptr;
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(made, what));
  if (!complete) return Status::Ok();
  return ToStatus(cudaGraphLaunch(entry.exec, stream), "starting a graph");
}

}  // namespace llama_steer::cuda
