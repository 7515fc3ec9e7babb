// Causal attention over paged keys and values.
//
// A row is one query head of one token. Its arithmetic is fixed: the context is cut into splits of
// 256 tokens; a split is an online softmax over tiles of 64 tokens; splits are merged in rising
// order. The kernel for prompts goes through the splits one after the other, the kernel for
// generation takes them side by side and merges them afterwards, and both do the same on the same
// numbers: a token has the same bits however its prompt was cut, and in every batch.
//
// bf16 pages with heads of 32, 64 or 128 go to the tensor cores, q and the weights rounded to bf16.
// Everything else is computed in float32 by a plain kernel: exact, and slow.
#pragma once

#include "backend/backend.h"
#include "kernels/kv_pages.h"

namespace llama_steer::cuda {

inline constexpr int kTileTokens = 64;
inline constexpr int kSplitTokens = 256;

struct AttentionParams {
  const float* q = nullptr;          // [rows, query_heads * head_size]
  float* output = nullptr;           // [rows, query_heads * head_size]
  __nv_bfloat16* rounded = nullptr;  // the same, rounded; rounded_stride values a row
  int64_t rounded_stride = 0;
  const SequenceSpan* spans = nullptr;
  const int32_t* block_table = nullptr;
  KvPages pages;
  int32_t layer = 0;
  int32_t query_heads = 0;
  float scale = 0.0f;  // 1 / sqrt(head_size)
};

/// Rows of (token, head of the group) that a block of the prompt kernel shares.
inline constexpr int kPrefillRows = 64;
/// Most such rows of a sequence for the generation kernel.
inline constexpr int kDecodeRows = 16;

/// Rows [first, first + 64) of (token, head of the group), token-major, of one sequence.
struct PrefillItem {
  int32_t span = 0;
  int32_t first = 0;
};
struct AttentionPrefillParams {
  AttentionParams common;
  const PrefillItem* items = nullptr;
  int32_t item_count = 0;
};
cudaError_t AttentionPrefill(const AttentionPrefillParams& params, cudaStream_t stream);

/// What one split says of its rows.
struct SplitState {
  float largest = 0.0f;  // of the scores, times log2(e)
  float total = 0.0f;    // Σ 2^(score − largest)
};
struct AttentionDecodeParams {
  AttentionParams common;
  const int32_t* items = nullptr;  // [item_count], indices into spans
  int32_t item_count = 0;
  int32_t max_splits = 0;        // of any item
  SplitState* states = nullptr;  // [items, kv_heads, max_splits, kDecodeRows]
  float* sums = nullptr;         // [items, kv_heads, max_splits, kDecodeRows, head_size]
};
cudaError_t AttentionDecode(const AttentionDecodeParams& params, cudaStream_t stream);

struct AttentionExactParams {
  AttentionParams common;
  const int32_t* row_spans = nullptr;  // [rows], the span of each row
  int32_t rows = 0;
};
cudaError_t AttentionExact(const AttentionExactParams& params, cudaStream_t stream);

/// Whether the tensor core kernels take these pages: the head sizes of WithHeadSize.
constexpr bool HasTensorAttention(DType dtype, int32_t head_size) {
  return dtype == DType::kBF16 && (head_size == 32 || head_size == 64 || head_size == 128);
}

}  // namespace llama_steer::cuda
