#include "engine/vector_table.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace llama_steer {

ResidentVector::~ResidentVector() {
  if (runner_ == nullptr) return;
  for (const int32_t row : device_rows_) runner_->DropVectorRow(row);
}

int32_t ResidentVector::DeviceRow(int32_t layer) const {
  const auto found = std::ranges::lower_bound(layers_, layer);
  if (found == layers_.end() || *found != layer) return -1;
  return device_rows_[static_cast<size_t>(found - layers_.begin())];
}

std::span<const float> ResidentVector::HostRow(int32_t layer) const {
  const auto found = std::ranges::lower_bound(layers_, layer);
  return host_rows_[static_cast<size_t>(found - layers_.begin())];
}

Status ResidentVector::AddRow(int32_t layer, std::span<const float> row) {
  int32_t device_row = layer;
  if (runner_ != nullptr) {
    StatusOr<int32_t> put = runner_->PutVectorRow(row);
    if (!put.ok()) return put.status();
    device_row = *put;
  }
  layers_.push_back(layer);
  device_rows_.push_back(device_row);
  host_rows_.emplace_back(row.begin(), row.end());
  return Status::Ok();
}

void VectorTable::Drop(VectorHandle handle) {
  const auto found = vectors_.find(handle);
  if (found == vectors_.end()) return;
  if (found->second.vector) rows_ -= found->second.vector->layers().size();
  vectors_.erase(found);
}

void VectorTable::Put(const VectorRows& vector) {
  Drop(vector.handle);
  auto resident = std::make_shared<ResidentVector>(&runner_, vector.digest);
  Slot slot;
  for (size_t i = 0; i < vector.layers.size() && slot.status.ok(); ++i) {
    slot.status = resident->AddRow(vector.layers[i], vector.rows[i]);
  }
  if (slot.status.ok()) {
    rows_ += resident->layers().size();
    slot.vector = std::move(resident);
  }
  vectors_[vector.handle] = std::move(slot);
}

StatusOr<std::shared_ptr<const ResidentVector>> VectorTable::Find(VectorHandle handle) const {
  const auto found = vectors_.find(handle);
  if (found == vectors_.end()) {
    return Status::NotFound("steering vector " + std::to_string(handle) +
                            " is not held by the engine");
  }
  if (!found->second.status.ok()) return found->second.status;
  return found->second.vector;
}

Status CheckVectorRows(const VectorRows& vector, int32_t layers, int32_t hidden_size) {
  if (vector.layers.empty()) return Status::InvalidArgument("the vector holds no layer");
  if (vector.layers.size() != vector.rows.size()) {
    return Status::InvalidArgument("the vector has " + std::to_string(vector.layers.size()) +
                                   " layers but " + std::to_string(vector.rows.size()) + " rows");
  }
  for (size_t i = 0; i < vector.layers.size(); ++i) {
    const int32_t layer = vector.layers[i];
    if (layer < 0 || layer >= layers) {
      return Status::InvalidArgument("layer " + std::to_string(layer) +
                                     " of the vector is outside the model's " +
                                     std::to_string(layers) + " layers");
    }
    if (i > 0 && layer <= vector.layers[i - 1]) {
      return Status::InvalidArgument("the layers of a vector must ascend");
    }
    if (vector.rows[i].size() != static_cast<size_t>(hidden_size)) {
      return Status::InvalidArgument(
          "a row of the vector has " + std::to_string(vector.rows[i].size()) +
          " values, the model's hidden size is " + std::to_string(hidden_size));
    }
    if (!std::ranges::all_of(vector.rows[i], [](float value) { return std::isfinite(value); })) {
      return Status::InvalidArgument("layer " + std::to_string(layer) +
                                     " of the vector holds a value that is not finite");
    }
  }
  return Status::Ok();
}

}  // namespace llama_steer
