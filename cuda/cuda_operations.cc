// The operations of a step: parameters from host objects, then a launch.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "cuda_backend.h"
#include "kernels/copy_rows.h"
#include "kernels/embed.h"
#include "kernels/residual_steer_norm.h"

namespace llama_steer::cuda {
namespace {

constexpr int64_t kMaxGridRows = 65535;  // rows that stand in the y or z of a grid

}  // namespace

Status CudaBackend::Embed(const Weight& table, const StepTables& step, Activations residual) {
  LLAMA_STEER_RETURN_IF_ERROR(step_.Prepare(step));
  const EmbedParams params{cuda::AsCuda(table).view(), step_.step().token_ids,
                           step_.step().rows,          activations_.matrix(residual),
                           step_.step().drawn,         sampler_.results()};
  WroteValuesOnly(residual);
  return ToStatus(cuda::Embed(params, stream_), "embed");
}

Status CudaBackend::Attention(const StepTables& step, int32_t layer, Activations q,
                              const KvCache& cache, Activations output) {
  LLAMA_STEER_RETURN_IF_ERROR(step_.Prepare(step));
  const Matrix out = activations_.matrix(output);
  AttentionParams common;
  common.q = Floats(q);
  common.output = out.values;
  common.rounded = out.rounded;
  common.rounded_stride = out.rounded_stride;
  common.spans = step_.step().spans;
  common.block_table = step_.step().block_table;
  common.pages = AsCuda(cache).pages();
  common.layer = layer;
  common.query_heads = static_cast<int32_t>(q.cols / cache.shape.head_size);
  common.scale = 1.0f / std::sqrt(static_cast<float>(cache.shape.head_size));
  WroteRounded(output, step_.step().rows);
  if (HasTensorAttention(cache.shape.dtype, cache.shape.head_size)) {
    return AttentionOnTensorCores(common, step);
  }
  const AttentionExactParams params{common, step_.step().row_spans, step_.step().rows};
  return ToStatus(AttentionExact(params, stream_), "attention in float32");
}

Status CudaBackend::AttentionOnTensorCores(const AttentionParams& common, const StepTables& step) {
  LLAMA_STEER_RETURN_IF_ERROR(
      step_.PrepareAttention(step, common.query_heads / common.pages.kv_heads));
  const DeviceAttentionItems& items = step_.attention();
  const AttentionPrefillParams prefill{common, items.prefill, items.prefill_count};
  LLAMA_STEER_RETURN_IF_ERROR(ToStatus(AttentionPrefill(prefill, stream_), "attention of prompts"));
  const auto states = static_cast<size_t>(items.decode_count) *
                      static_cast<size_t>(common.pages.kv_heads) *
                      static_cast<size_t>(items.max_splits) * kDecodeRows;
  const auto head_size = static_cast<size_t>(common.pages.head_size);
  LLAMA_STEER_RETURN_IF_ERROR(split_states_.Reserve(states * sizeof(SplitState)));
  LLAMA_STEER_RETURN_IF_ERROR(split_sums_.Reserve(states * head_size * sizeof(float)));
  for (int32_t first = 0; first < items.decode_count; first += kMaxGridRows) {
    const auto count =
        static_cast<int32_t>(std::min<int64_t>(items.decode_count - first, kMaxGridRows));
    const AttentionDecodeParams decode{
        common,           items.decode + first,           count,
        items.max_splits, split_states_.as<SplitState>(), split_sums_.as<float>()};
    LLAMA_STEER_RETURN_IF_ERROR(
        ToStatus(AttentionDecode(decode, stream_), "attention of generation"));
  }
  return Status::Ok();
}

Status CudaBackend::ApplyResidualSteerNorm(const ResidualSteerNorm& args, const StepTables& step) {
  if (args.residual.cols > kMaxHiddenSize) {
    return Status::InvalidArgument("the CUDA backend has a hidden size of at most " +
                                   std::to_string(kMaxHiddenSize));
  }
  LLAMA_STEER_RETURN_IF_ERROR(step_.Prepare(step));
  ResidualSteerNormParams params;
  params.block = args.block;
  params.sublayer = args.sublayer;
  params.is_last = args.is_last;
  params.rows = step_.step().rows;
  params.positions = step_.step().positions;
  params.residual = Floats(args.residual);
  params.delta = args.delta == nullptr ? nullptr : Floats(*args.delta);
  params.norm_weight = cuda::AsCuda(*args.norm_weight).view();
  params.epsilon = args.epsilon;
  params.normed = activations_.matrix(args.normed);
  if (args.steering != nullptr) {
    LLAMA_STEER_RETURN_IF_ERROR(steering_.Prepare(*args.steering));
    params.steering = steering_.tables();
  }
  if (args.probes != nullptr) {
    LLAMA_STEER_RETURN_IF_ERROR(probes_.Prepare(*args.probes));
    params.probes = probes_.tables();
  }
  if (args.capture != nullptr) {
    LLAMA_STEER_RETURN_IF_ERROR(capture_.Prepare(*args.capture, args.residual.cols));
    params.capture = capture_.tables();
  }
  WroteValuesOnly(args.residual);
  WroteRounded(args.normed, params.rows);
  LLAMA_STEER_RETURN_IF_ERROR(
      ToStatus(ResidualSteerNormPass(params, stream_), "residual and norm"));
  return args.capture == nullptr ? Status::Ok() : CopyCaptures(args);
}

Status CudaBackend::CopyCaptures(const ResidualSteerNorm& args) {
  std::vector<CapturePoint> points;
  switch (args.sublayer) {
    case Sublayer::kEmbedding:
      points = {CapturePoint::kEmbedding};
      break;
    case Sublayer::kAttention:
      points = {CapturePoint::kAttentionDelta};
      break;
    case Sublayer::kMlp:
      points = {CapturePoint::kMlpDelta, CapturePoint::kResidualBeforeSteering,
                CapturePoint::kResidual};
      break;
  }
  if (args.is_last) points.push_back(CapturePoint::kFinalNorm);
  for (const CapturePoint point : points) {
    LLAMA_STEER_RETURN_IF_ERROR(capture_.CopySite(point, args.block));
  }
  return Status::Ok();
}

Status CudaBackend::GatherRows(Activations x, std::span<const int32_t> rows, Activations output) {
  GatherRowsParams params;
  params.x = Floats(x);
  params.count = static_cast<int32_t>(PaddedRows(static_cast<int64_t>(rows.size())));
  if (pass_rows_ > 0) {
    params.rows = pass_tables_.logit_rows();
  } else {
    LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<int32_t>(rows, params.rows));
  }
  params.output = activations_.matrix(output);
  WroteRounded(output, params.count);
  return ToStatus(cuda::GatherRows(params, stream_), "gathering rows");
}

Status CudaBackend::UploadRows(std::span<const float* const> rows, Activations to) {
  std::vector<float> flat;
  for (const float* row : rows) flat.insert(flat.end(), row, row + to.cols);
  const float* uploaded = nullptr;
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<float>(flat, uploaded));
  WroteValuesOnly(to);
  return ToStatus(cudaMemcpyAsync(to.data, uploaded, flat.size() * sizeof(float),
                                  cudaMemcpyDeviceToDevice, stream_),
                  "copying rows to the device");
}

Status CudaBackend::CopyKvBlocks(std::span<const BlockCopy> copies, KvCache& cache) {
  const KvPages pages = AsCuda(cache).pages();
  const int64_t block_bytes =
      pages.page_values() * pages.kv_heads * static_cast<int64_t>(DTypeBytes(pages.dtype));
  constexpr int64_t kVectorBytes = 16;
  CopyBlocksParams params;
  params.cache = static_cast<uint4*>(pages.data);
  LLAMA_STEER_RETURN_IF_ERROR(uploads_.Put<BlockCopy>(copies, params.copies));
  params.count = static_cast<int32_t>(copies.size());
  params.layers = cache.shape.layers;
  params.block_vectors = block_bytes / kVectorBytes;
  params.layer_vectors = params.block_vectors * pages.blocks;
  return ToStatus(CopyBlocks(params, stream_), "copying KV blocks");
}

}  // namespace llama_steer::cuda
