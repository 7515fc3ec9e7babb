#include "cuda/case_memory.h"

#include <utility>

namespace llama_steer::cuda::bench {
namespace {

constexpr float kWeightScale = 0.03f;
/// Of the largest code to a weight of kWeightScale.
constexpr float kInt8Scale = kWeightScale / 127.0f;
constexpr float kFp8Scale = kWeightScale / 448.0f;

}  // namespace

void* CaseMemory::Allocate(int64_t bytes) {
  if (!status_.ok()) return nullptr;
  DeviceBuffer buffer;
  status_ = buffer.Grow(static_cast<size_t>(bytes));
  if (!status_.ok()) return nullptr;
  buffers_.push_back(std::move(buffer));
  return buffers_.back().as<void>();
}

void* CaseMemory::Filled(int64_t bytes, FillParams params) {
  params.data = Allocate(bytes);
  params.seed = seed_++;
  if (params.data != nullptr) Check(FillRandom(params, stream_), "random values");
  return params.data;
}

float* CaseMemory::Floats(int64_t count, float scale, float offset) {
  const auto bytes = count * static_cast<int64_t>(sizeof(float));
  return static_cast<float*>(
      Filled(bytes, {.count = count, .kind = FillKind::kF32, .scale = scale, .offset = offset}));
}

__nv_bfloat16* CaseMemory::Bf16(int64_t count, float scale, float offset) {
  const auto bytes = count * static_cast<int64_t>(sizeof(__nv_bfloat16));
  return static_cast<__nv_bfloat16*>(
      Filled(bytes, {.count = count, .kind = FillKind::kBf16, .scale = scale, .offset = offset}));
}

uint8_t* CaseMemory::Codes(int64_t count) {
  return static_cast<uint8_t*>(Filled(count, {.count = count, .kind = FillKind::kBytes}));
}

Matrix CaseMemory::Activations(int64_t rows, int64_t cols, float scale, float offset) {
  Matrix matrix;
  matrix.cols = cols;
  matrix.rounded_stride = PaddedColumns(cols);
  matrix.values = Floats(rows * cols, scale, offset);
  matrix.rounded = Bf16(rows * matrix.rounded_stride, scale, offset);
  return matrix;
}

WeightView CaseMemory::Weight(DType dtype, int64_t rows, int64_t cols) {
  WeightView view{.dtype = dtype, .rows = rows, .cols = cols, .stride = PaddedColumns(cols)};
  switch (dtype) {
    case DType::kBF16:
      view.data = Bf16(rows * view.stride, kWeightScale);
      break;
    case DType::kInt8:
      view.data = Codes(rows * view.stride);
      view.scales = Bf16(rows * view.stride / kInt8GroupSize, 0.0f, kInt8Scale);
      break;
    case DType::kFp8:
      view.data = Codes(rows * view.stride);
      view.row_scales = Floats(rows, 0.0f, kFp8Scale);
      break;
    case DType::kF32:
    case DType::kF16:
      view.dtype = DType::kF32;
      view.stride = cols;
      view.data = Floats(rows * cols, kWeightScale);
      break;
  }
  return view;
}

}  // namespace llama_steer::cuda::bench
