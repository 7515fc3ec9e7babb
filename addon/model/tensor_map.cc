#include "model/tensor_map.h"

#include <utility>

namespace llama_steer {

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

StatusOr<std::vector<MappedFile>> MapFiles(const std::vector<std::string>& paths) {
  std::vector<MappedFile> files;
  for (const std::string& path : paths) {
    StatusOr<MappedFile> file = MappedFile::Open(path);
    if (!file.ok()) return file.status();
    files.push_back(std::move(file).value());
  }
  return files;
}

StatusOr<TensorView> ViewOf(const TensorLocation& tensor, std::span<const MappedFile> files) {
  if (tensor.file < 0 || static_cast<size_t>(tensor.file) >= files.size()) {
    return Status::InvalidArgument("tensor " + tensor.name + " names a file that is not there");
  }
  const std::span<const std::byte> bytes = files[static_cast<size_t>(tensor.file)].bytes();
  if (tensor.offset_bytes > bytes.size() ||
      tensor.size_bytes > bytes.size() - tensor.offset_bytes) {
    return Status::InvalidArgument("tensor " + tensor.name + " ends at byte " +
                                   std::to_string(tensor.offset_bytes + tensor.size_bytes) +
                                   " of a file of " + std::to_string(bytes.size()));
  }
  if (tensor.offset_bytes % DTypeBytes(tensor.dtype) != 0) {
    return Status::InvalidArgument("tensor " + tensor.name + " is not aligned to its type");
  }
  if (tensor.shape.empty() || tensor.shape.size() > 2) {
    return Status::InvalidArgument("tensor " + tensor.name + " has shape " +
                                   ShapeText(tensor.shape) +
                                   ", one or two dimensions are expected");
  }
  TensorView view;
  view.name = tensor.name;
  view.data = bytes.data() + tensor.offset_bytes;
  view.dtype = tensor.dtype;
  view.rows = tensor.shape.size() == 1 ? 1 : tensor.shape[0];
  view.cols = tensor.shape.back();
  if (view.bytes() != tensor.size_bytes) {
    return Status::InvalidArgument(
        "tensor " + tensor.name + " of shape " + ShapeText(tensor.shape) + " has " +
        std::to_string(tensor.size_bytes) + " bytes, not " + std::to_string(view.bytes()));
  }
  return view;
}

}  // namespace llama_steer
