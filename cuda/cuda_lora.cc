#include "cuda_lora.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace llama_steer::cuda {
namespace {

struct CudaLora final : LoraWeight {
  DeviceBuffer a_data;
  DeviceBuffer b_data;
  WeightView a;             // [rank, inputs]
  WeightView b_transposed;  // [rank, outputs]
};

Status CopyFactor(const void* from, const WeightView& shape, DeviceBuffer& to,
                  const Stream& stream) {
  const size_t bytes = static_cast<size_t>(shape.rows * shape.cols) * DTypeBytes(shape.dtype);
  const char* what = "copying an adapter to the device";
  LLAMA_STEER_RETURN_IF_ERROR(to.Grow(bytes));
  LLAMA_STEER_RETURN_IF_ERROR(
      ToStatus(cudaMemcpyAsync(to.as<void>(), from, bytes, cudaMemcpyHostToDevice, stream), what));
  return ToStatus(cudaStreamSynchronize(stream), what);
}

std::vector<std::byte> Transposed(const TensorView& from) {
  const size_t size = DTypeBytes(from.dtype);
  std::vector<std::byte> to(from.bytes());
  const auto* source = static_cast<const std::byte*>(from.data);
  for (int64_t n = 0; n < from.rows; ++n) {
    for (int64_t k = 0; k < from.cols; ++k, source += size) {
      std::memcpy(to.data() + static_cast<size_t>(k * from.rows + n) * size, source, size);
    }
  }
  return to;
}

}  // namespace

StatusOr<std::unique_ptr<LoraWeight>> MakeCudaLora(const TensorView& a, const TensorView& b,
                                                   float scale, const Stream& stream) {
  if (DTypeBytes(a.dtype) < 2 || DTypeBytes(b.dtype) < 2 || a.rows != b.cols) {
    return Status::InvalidArgument("LoRA factors that do not fit each other");
  }
  auto lora = std::make_unique<CudaLora>();
  lora->inputs = a.cols;
  lora->outputs = b.rows;
  lora->rank = a.rows;
  lora->scale = scale;
  lora->a = {.dtype = a.dtype, .rows = a.rows, .cols = a.cols, .stride = a.cols};
  lora->b_transposed = {.dtype = b.dtype, .rows = b.cols, .cols = b.rows, .stride = b.rows};
  LLAMA_STEER_RETURN_IF_ERROR(CopyFactor(a.data, lora->a, lora->a_data, stream));
  LLAMA_STEER_RETURN_IF_ERROR(
      CopyFactor(Transposed(b).data(), lora->b_transposed, lora->b_data, stream));
  lora->a.data = lora->a_data.as<void>();
  lora->b_transposed.data = lora->b_data.as<void>();
  return std::unique_ptr<LoraWeight>(std::move(lora));
}

Status LoraStep::Add(const float* x, std::span<const LoraTerm> terms) {
  LoraParams params;
  params.x = x;
  size_t floats = 0;
  for (const LoraTerm& term : terms) {
    floats += static_cast<size_t>(term.row_count * term.weight->rank);
  }
  LLAMA_STEER_RETURN_IF_ERROR(reduced_.Reserve(floats * sizeof(float)));
  terms_.clear();
  float* reduced = reduced_.as<float>();
  for (const LoraTerm& term : terms) {
    const auto& lora = static_cast<const CudaLora&>(*term.weight);
    terms_.push_back({lora.a, lora.b_transposed, lora.scale, term.first_row, term.row_count,
                      static_cast<float*>(term.output.data), reduced});
    reduced += term.row_count * lora.rank;
    params.max_rows = std::max(params.max_rows, term.row_count);
    params.max_rank = std::max(params.max_rank, lora.rank);
    params.max_outputs = std::max(params.max_outputs, lora.outputs);
  }
  params.term_count = static_cast<int32_t>(terms_.size());
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<DeviceLoraTerm>(terms_, params.terms));
  return ToStatus(AddLora(params, stream_), "adding adapters");
}

}  // namespace llama_steer::cuda
