// Tensors inside mapped files: every offset is checked again before a byte is read.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "model/llama_config.h"
#include "model/mapped_file.h"
#include "support/status.h"
#include "support/tensor_view.h"

namespace llama_steer {

/// "[2, 3]"
std::string ShapeText(const std::vector<int64_t>& shape);

StatusOr<std::vector<MappedFile>> MapFiles(const std::vector<std::string>& paths);

/// The bytes of a tensor of one or two dimensions. The name of the view is that of `tensor`.
StatusOr<TensorView> ViewOf(const TensorLocation& tensor, std::span<const MappedFile> files);

}  // namespace llama_steer
