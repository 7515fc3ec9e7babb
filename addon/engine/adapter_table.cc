#include "engine/adapter_table.h"

#include <string>
#include <utility>

namespace llama_steer {

void AdapterTable::Put(AdapterHandle handle, const Digest& digest, const MappedLora& lora) {
  Drop(handle);
  Slot slot;
  StatusOr<int32_t> index = runner_.PutAdapter(lora);
  if (index.ok()) {
    slot.adapter = std::make_shared<const ResidentAdapter>(runner_, digest, *index);
    slot.bytes = lora.bytes();
  } else {
    slot.status = index.status();
  }
  bytes_ += slot.bytes;
  adapters_[handle] = std::move(slot);
}

void AdapterTable::Drop(AdapterHandle handle) {
  const auto found = adapters_.find(handle);
  if (found == adapters_.end()) return;
  bytes_ -= found->second.bytes;
  adapters_.erase(found);
}

StatusOr<std::shared_ptr<const ResidentAdapter>> AdapterTable::Find(AdapterHandle handle) const {
  if (handle == kNoAdapter) return std::shared_ptr<const ResidentAdapter>();
  const auto found = adapters_.find(handle);
  if (found == adapters_.end()) {
    return Status::NotFound("adapter " + std::to_string(handle) + " is not held by the engine");
  }
  if (!found->second.status.ok()) return found->second.status;
  return found->second.adapter;
}

}  // namespace llama_steer
