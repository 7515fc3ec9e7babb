// The CUDA backend: hands each operation of backend.h to its kernels.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace llama_steer::cuda {

/// `device`: number of the CUDA device.
StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(int32_t device);

}  // namespace llama_steer::cuda
