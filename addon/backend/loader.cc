#include "backend/loader.h"

#include <dlfcn.h>

#include <charconv>
#include <optional>
#include <string>

namespace llama_steer {
namespace {

constexpr const char* kCudaLibrary = "libllama_steer_cuda.so";
constexpr const char* kEntryPoint = "llama_steer_backend_plugin";

/// The folder of the binary that holds this function: the addon's, or a test's.
std::string OwnFolder() {
  Dl_info info = {};
  if (dladdr(reinterpret_cast<void*>(&OwnFolder), &info) == 0 || info.dli_fname == nullptr) {
    return ".";
  }
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

/// Plugins stay loaded until the process ends: device runtimes do not survive being unloaded.
StatusOr<std::unique_ptr<Backend>> CreateFromPlugin(int32_t device, const std::string& folder) {
  const std::string path = (folder.empty() ? OwnFolder() : folder) + "/" + kCudaLibrary;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return Status::FailedPrecondition("no CUDA backend: " + std::string(dlerror()));
  }
  const auto* plugin = static_cast<const BackendPlugin*>(dlsym(library, kEntryPoint));
  if (plugin == nullptr) {
    return Status::FailedPrecondition("no CUDA backend: " + path + " has no " + kEntryPoint);
  }
  if (plugin->api_version != kBackendApiVersion) {
    return Status::FailedPrecondition("no CUDA backend: " + path + " has API version " +
                                      std::to_string(plugin->api_version) + ", needed is " +
                                      std::to_string(kBackendApiVersion));
  }
  if (plugin->score() <= 0) {
    return Status::FailedPrecondition("no CUDA device can be used (is the driver installed?)");
  }
  const char* error = nullptr;
  std::unique_ptr<Backend> backend(plugin->create(device, &error));
  if (backend == nullptr) {
    return Status::FailedPrecondition(error == nullptr ? "the CUDA device failed" : error);
  }
  return backend;
}

/// "cuda" -> 0, "cuda:N" -> N, anything else -> nothing.
std::optional<int32_t> CudaDeviceNumber(std::string_view device) {
  constexpr std::string_view kPrefix = "cuda";
  if (!device.starts_with(kPrefix)) return std::nullopt;
  device.remove_prefix(kPrefix.size());
  if (device.empty()) return 0;
  if (device.size() < 2 || device[0] != ':') return std::nullopt;
  int32_t number = 0;
  const auto [end, error] =
      std::from_chars(device.data() + 1, device.data() + device.size(), number);
  if (error != std::errc() || end != device.data() + device.size() || number < 0) {
    return std::nullopt;
  }
  return number;
}

}  // namespace

StatusOr<std::unique_ptr<Backend>> CreateBackend(std::string_view device, std::string_view cpu_isa,
                                                 int32_t threads, std::string* why_cpu,
                                                 const std::string& plugin_folder) {
  const CpuBackendOptions cpu{threads, std::string(cpu_isa)};
  if (device == "cpu") return CreateCpuBackend(cpu);
  if (device == "auto") {
    StatusOr<std::unique_ptr<Backend>> accelerated = CreateFromPlugin(0, plugin_folder);
    if (accelerated.ok()) return accelerated;
    if (why_cpu != nullptr) *why_cpu = accelerated.status().message();
    return CreateCpuBackend(cpu);
  }
  const std::optional<int32_t> number = CudaDeviceNumber(device);
  if (!number) {
    return Status::InvalidArgument("unknown device \"" + std::string(device) +
                                   "\"; there are auto, cpu, cuda, cuda:N");
  }
  return CreateFromPlugin(*number, plugin_folder);
}

}  // namespace llama_steer
