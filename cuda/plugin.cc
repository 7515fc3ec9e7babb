// The C entry point that addon/backend/loader.cc looks for.
#include <cuda_runtime_api.h>

#include <string>

#include "backend/loader.h"
#include "cuda_backend.h"

namespace llama_steer::cuda {
namespace {

int32_t Score() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0 ? 1 : 0;
}

Backend* Create(int32_t device, const char** error) {
  StatusOr<std::unique_ptr<Backend>> backend = CreateCudaBackend(device);
  if (backend.ok()) return backend.value().release();
  static thread_local std::string message;
  message = "CUDA device " + std::to_string(device) + ": " + backend.status().message();
  *error = message.c_str();
  return nullptr;
}

}  // namespace
}  // namespace llama_steer::cuda

extern "C" {
__attribute__((
    visibility("default"))) extern const llama_steer::BackendPlugin llama_steer_backend_plugin;
const llama_steer::BackendPlugin llama_steer_backend_plugin = {
    llama_steer::kBackendApiVersion, &llama_steer::cuda::Score, &llama_steer::cuda::Create};
}
