// Stands in for the CPU backend in a build without Google Highway (CMakeLists.txt).
#include "backend/backend.h"

namespace llama_steer {

StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const CpuBackendOptions&) {
  return Status::FailedPrecondition("this build has no CPU backend: Google Highway was missing");
}

}  // namespace llama_steer
