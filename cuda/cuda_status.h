// Errors of the CUDA runtime as Status.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "support/status.h"

namespace llama_steer::cuda {

inline Status ToStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return Status::Ok();
  const std::string text = std::string(what) + ": " + cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // this one is not sticky: leave nothing behind
    return Status::ResourceExhausted(text);
  }
  return Status::Internal(text);
}

}  // namespace llama_steer::cuda
