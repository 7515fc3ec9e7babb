// A device plugin that cannot be used, built once for each way in which that shows.
#include "backend/loader.h"

namespace llama_steer {
namespace {

int32_t Score() { return LLAMA_STEER_PLUGIN_SCORE; }

Backend* Create(int32_t, const char** error) {
  *error = LLAMA_STEER_PLUGIN_ERROR;
  return nullptr;
}

}  // namespace
}  // namespace llama_steer

extern "C" {
__attribute__((
    visibility("default"))) extern const llama_steer::BackendPlugin LLAMA_STEER_PLUGIN_ENTRY;
const llama_steer::BackendPlugin LLAMA_STEER_PLUGIN_ENTRY = {
    llama_steer::kBackendApiVersion + LLAMA_STEER_PLUGIN_NEWER, &llama_steer::Score,
    &llama_steer::Create};
}
