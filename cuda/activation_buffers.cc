#include "activation_buffers.h"

#include <algorithm>
#include <limits>

namespace llama_steer::cuda {

StatusOr<Activations> ActivationBuffers::Allocate(int64_t rows, int64_t cols,
                                                  const Stream& stream) {
  if (rows < 0 || cols < 0) return Status::InvalidArgument("negative size of activations");
  constexpr int64_t kMaxValues = std::numeric_limits<int64_t>::max() / 8;
  if (cols > 0 && rows > kMaxValues / (cols + kPaddedColumns)) {
    return Status::ResourceExhausted("activations of that size cannot be addressed");
  }
  auto buffer = std::make_unique<ActivationBuffer>();
  buffer->rounded_stride = PaddedColumns(cols);
  const auto values = static_cast<size_t>(std::max<int64_t>(rows * cols, 1));
  const auto rounded = static_cast<size_t>(std::max<int64_t>(rows * buffer->rounded_stride, 1));
  LLAMA_STEER_RETURN_IF_ERROR(buffer->values.Grow(values * sizeof(float)));
  LLAMA_STEER_RETURN_IF_ERROR(buffer->rounded.Grow(rounded * sizeof(__nv_bfloat16)));
  // The columns behind the last one stay zero for good.
  LLAMA_STEER_RETURN_IF_ERROR(
      ToStatus(cudaMemsetAsync(buffer->rounded.as<void>(), 0, buffer->rounded.bytes(), stream),
               "clearing activations"));
  const Activations x{buffer->values.as<void>(), rows, cols};
  buffers_.emplace(x.data, std::move(buffer));
  return x;
}

}  // namespace llama_steer::cuda
