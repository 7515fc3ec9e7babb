#include "vector_rows.h"

#include <algorithm>
#include <cmath>

namespace llama_steer::cuda {
namespace {

constexpr size_t kSlotsOfChunk = 64;

}  // namespace

Status VectorRows::AddSlots(size_t width) {
  DeviceBuffer chunk;
  LLAMA_STEER_RETURN_IF_ERROR(chunk.Grow(kSlotsOfChunk * 2 * width * sizeof(float)));
  std::vector<int32_t>& free = free_[width];
  const size_t first = slots_.size();
  for (size_t i = 0; i < kSlotsOfChunk; ++i) {
    slots_.push_back({{}, chunk.as<float>() + i * 2 * width, width});
    free.push_back(static_cast<int32_t>(first + kSlotsOfChunk - 1 - i));
  }
  chunks_.push_back(std::move(chunk));
  return Status::Ok();
}

StatusOr<int32_t> VectorRows::Put(std::span<const float> values, const Stream& stream) {
  const size_t width = values.size();
  if (width == 0) return Status::InvalidArgument("a vector without values");
  if (free_[width].empty()) LLAMA_STEER_RETURN_IF_ERROR(AddSlots(width));
  std::vector<int32_t>& free = free_[width];
  const int32_t index = free.back();
  free.pop_back();

  // Length and direction in float64: they hold for vectors of any size.
  double squares = 0.0;
  for (const float value : values) squares += static_cast<double>(value) * value;
  const double norm = std::sqrt(squares);
  std::vector<float> both(values.begin(), values.end());
  both.resize(2 * width, 0.0f);
  if (norm > 0.0) {
    std::transform(values.begin(), values.end(), both.begin() + static_cast<std::ptrdiff_t>(width),
                   [norm](float value) { return static_cast<float>(value / norm); });
  }
  Slot& slot = slots_[static_cast<size_t>(index)];
  slot.row = {slot.memory, slot.memory + width, norm > 0.0 ? static_cast<float>(norm) : 0.0f};
  const char* what = "copying a vector to the device";
  LLAMA_STEER_RETURN_IF_ERROR(
      ToStatus(cudaMemcpyAsync(slot.memory, both.data(), both.size() * sizeof(float),
                               cudaMemcpyHostToDevice, stream),
               what));
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream), what));
  return index;
}

void VectorRows::Drop(int32_t row) {
  Slot& slot = slots_[static_cast<size_t>(row)];
  slot.row = {};
  free_[slot.width].push_back(row);
}

}  // namespace llama_steer::cuda
