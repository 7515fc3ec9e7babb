#include "model/lora.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "model/tensor_map.h"

namespace llama_steer {
namespace {

struct Sizes {
  int64_t inputs = 0;
  int64_t outputs = 0;
};

Sizes SizesOf(const LlamaConfig& config, LoraModule module) {
  const int64_t d = config.hidden_size;
  const int64_t wide = config.intermediate_size;
  const int64_t q_width = static_cast<int64_t>(config.query_heads) * config.head_size;
  const int64_t kv_width = static_cast<int64_t>(config.kv_heads) * config.head_size;
  switch (module) {
    case LoraModule::kQ:
      return {d, q_width};
    case LoraModule::kK:
    case LoraModule::kV:
      return {d, kv_width};
    case LoraModule::kO:
      return {q_width, d};
    case LoraModule::kGate:
    case LoraModule::kUp:
      return {d, wide};
    case LoraModule::kDown:
      return {wide, d};
  }
  return {};
}

/// All exponent bits set: infinity or NaN.
template <class Bits>
bool AnyHas(const void* data, size_t count, Bits exponent) {
  const auto* values = static_cast<const Bits*>(data);
  return std::any_of(values, values + count,
                     [exponent](Bits bits) { return (bits & exponent) == exponent; });
}

bool IsFinite(const TensorView& view) {
  const size_t count = static_cast<size_t>(view.rows) * static_cast<size_t>(view.cols);
  switch (view.dtype) {
    case DType::kF32:
      return !AnyHas<uint32_t>(view.data, count, 0x7f800000u);
    case DType::kF16:
      return !AnyHas<uint16_t>(view.data, count, 0x7c00u);
    case DType::kBF16:
      return !AnyHas<uint16_t>(view.data, count, 0x7f80u);
    case DType::kInt8:
    case DType::kFp8:
      break;
  }
  return false;
}

Status MapFactor(const TensorLocation& tensor, const std::vector<int64_t>& shape,
                 std::span<const MappedFile> files, TensorView& to) {
  if (tensor.shape != shape) {
    return Status::InvalidArgument("tensor " + tensor.name + " has shape " +
                                   ShapeText(tensor.shape) + ", the model and the rank ask for " +
                                   ShapeText(shape));
  }
  StatusOr<TensorView> view = ViewOf(tensor, files);
  if (!view.ok()) return view.status();
  if (!IsFinite(*view)) {
    return Status::InvalidArgument("tensor " + tensor.name +
                                   " holds values that are not finite numbers");
  }
  to = *view;
  return Status::Ok();
}

Status MapTarget(const LlamaConfig& config, const LoraTarget& target, MappedLora& lora) {
  if (target.layer < 0 || target.layer >= config.layers) {
    return Status::InvalidArgument("the adapter changes layer " + std::to_string(target.layer) +
                                   ", the model has " + std::to_string(config.layers));
  }
  if (target.rank < 1 || !std::isfinite(target.scale)) {
    return Status::InvalidArgument("tensor " + target.a.name +
                                   ": its rank must be positive and its scale finite");
  }
  if (lora.Find(target.layer, target.module) != nullptr) {
    return Status::InvalidArgument("tensor " + target.a.name + " changes a projection twice");
  }
  const auto [inputs, outputs] = SizesOf(config, target.module);
  LoraFactors factors{
      .layer = target.layer, .module = target.module, .scale = target.scale, .a = {}, .b = {}};
  LLAMA_STEER_RETURN_IF_ERROR(MapFactor(target.a, {target.rank, inputs}, lora.files, factors.a));
  LLAMA_STEER_RETURN_IF_ERROR(MapFactor(target.b, {outputs, target.rank}, lora.files, factors.b));
  lora.factors.push_back(factors);
  return Status::Ok();
}

size_t IndexOf(int32_t layer, LoraModule module) {
  return static_cast<size_t>(layer) * kLoraModuleCount + static_cast<size_t>(module);
}

}  // namespace

uint64_t MappedLora::bytes() const {
  uint64_t bytes = 0;
  for (const LoraFactors& each : factors) bytes += each.a.bytes() + each.b.bytes();
  return bytes;
}

const LoraFactors* MappedLora::Find(int32_t layer, LoraModule module) const {
  const auto found = std::ranges::find_if(factors, [&](const LoraFactors& each) {
    return each.layer == layer && each.module == module;
  });
  return found == factors.end() ? nullptr : &*found;
}

StatusOr<MappedLora> MapLora(const LlamaConfig& config, LoraFiles files) {
  MappedLora lora;
  lora.source = std::move(files);
  StatusOr<std::vector<MappedFile>> mapped = MapFiles(lora.source.paths);
  if (!mapped.ok()) return mapped.status();
  lora.files = std::move(mapped).value();
  for (const LoraTarget& target : lora.source.targets) {
    LLAMA_STEER_RETURN_IF_ERROR(MapTarget(config, target, lora));
  }
  if (lora.factors.empty()) return Status::InvalidArgument("the adapter changes no projection");
  return lora;
}

StatusOr<std::unique_ptr<LoraAdapter>> LoraAdapter::Load(Backend& backend,
                                                         const LlamaConfig& config,
                                                         const MappedLora& lora) {
  auto adapter = std::make_unique<LoraAdapter>();
  adapter->weights_.resize(static_cast<size_t>(config.layers) * kLoraModuleCount);
  for (const LoraFactors& factors : lora.factors) {
    StatusOr<std::unique_ptr<LoraWeight>> weight =
        backend.LoadLora(factors.a, factors.b, factors.scale);
    if (!weight.ok()) return weight.status();
    adapter->weights_[IndexOf(factors.layer, factors.module)] = std::move(weight).value();
  }
  return adapter;
}

const LoraWeight* LoraAdapter::At(int32_t layer, LoraModule module) const {
  return weights_[IndexOf(layer, module)].get();
}

}  // namespace llama_steer
