// Adding an adapter to a projection's weights once, at load.
#pragma once

#include <cstdint>
#include <memory>

#include "model/lora.h"
#include "support/status.h"
#include "support/tensor_view.h"
#include "support/thread_pool.h"

namespace llama_steer {

/// W + scale · (B A), computed in float32 and rounded once to `dtype` (float32, float16 or
/// bfloat16), as PEFT's merge_and_unload does for a model of that type: W is rounded to it first.
/// Row-major bytes of W's shape. kResourceExhausted without memory.
StatusOr<std::unique_ptr<uint8_t[]>> MergeLora(const TensorView& weight, const LoraFactors& lora,
                                               DType dtype, ThreadPool& pool);

}  // namespace llama_steer
