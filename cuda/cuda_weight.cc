#include "cuda_weight.h"

#include "backend/cpu/cpu_weight.h"
#include "fp8_weight.h"

namespace llama_steer::cuda {
namespace {

/// Rows of `row_bytes` to rows of `stride_bytes`, zeros behind each.
Status CopyPadded(DeviceBuffer& to, const void* from, int64_t rows, int64_t row_bytes,
                  int64_t stride_bytes, const Stream& stream) {
  const auto size = static_cast<size_t>(rows * stride_bytes);
  LLAMA_STEER_RETURN_IF_ERROR(to.Grow(size));
  if (size == 0) return Status::Ok();
  const char* what = "copying a weight to the device";
  if (row_bytes != stride_bytes) {
    LLAMA_STEER_RETURN_IF_ERROR(ToStatus(cudaMemsetAsync(to.as<void>(), 0, size, stream), what));
  }
  LLAMA_STEER_RETURN_IF_ERROR(
      ToStatus(cudaMemcpy2DAsync(to.as<void>(), static_cast<size_t>(stride_bytes), from,
                                 static_cast<size_t>(row_bytes), static_cast<size_t>(row_bytes),
                                 static_cast<size_t>(rows), cudaMemcpyHostToDevice, stream),
               what));
  return ToStatus(cudaStreamSynchronize(stream), what);
}

StatusOr<std::unique_ptr<Weight>> MakeFp8Weight(const TensorView& view, ThreadPool& pool,
                                                const Stream& stream) {
  const StatusOr<Fp8Matrix> quantised = QuantiseFp8(view, pool);
  if (!quantised.ok()) return quantised.status();
  const Fp8Matrix& host = quantised.value();
  auto weight = std::make_unique<CudaWeight>();
  weight->rows = view.rows;
  weight->cols = view.cols;
  weight->dtype = DType::kFp8;
  weight->stride = PaddedColumns(view.cols);
  LLAMA_STEER_RETURN_IF_ERROR(
      CopyPadded(weight->data, host.codes.data(), view.rows, view.cols, weight->stride, stream));
  const auto scale_bytes = static_cast<int64_t>(host.scales.size() * sizeof(float));
  LLAMA_STEER_RETURN_IF_ERROR(
      CopyPadded(weight->scales, host.scales.data(), 1, scale_bytes, scale_bytes, stream));
  return std::unique_ptr<Weight>(std::move(weight));
}

}  // namespace

StatusOr<std::unique_ptr<Weight>> MakeCudaWeight(const TensorView& view, WeightFormat format,
                                                 ThreadPool& pool, const Stream& stream) {
  if (format == WeightFormat::kFp8) return MakeFp8Weight(view, pool, stream);
  StatusOr<std::unique_ptr<Weight>> made = cpu::MakeCpuWeight(view, format, pool);
  if (!made.ok()) return made.status();
  const cpu::CpuWeight& host = cpu::AsCpu(**made);
  auto weight = std::make_unique<CudaWeight>();
  weight->rows = host.rows;
  weight->cols = host.cols;
  weight->dtype = host.dtype;
  const bool padded = host.dtype == DType::kBF16 || host.dtype == DType::kInt8;
  weight->stride = padded ? PaddedColumns(host.cols) : host.cols;
  const auto value_bytes = static_cast<int64_t>(DTypeBytes(host.dtype));
  LLAMA_STEER_RETURN_IF_ERROR(CopyPadded(weight->data, host.data, host.rows,
                                         host.cols * value_bytes, weight->stride * value_bytes,
                                         stream));
  if (host.dtype == DType::kInt8) {
    constexpr int64_t kScaleBytes = 2;
    static_assert(kInt8GroupSize == cpu::kInt8GroupSize);
    LLAMA_STEER_RETURN_IF_ERROR(CopyPadded(weight->scales, host.scales, host.rows,
                                           host.groups_per_row() * kScaleBytes,
                                           weight->stride / kInt8GroupSize * kScaleBytes, stream));
  }
  return std::unique_ptr<Weight>(std::move(weight));
}

}  // namespace llama_steer::cuda
