#include "backend/cpu/rope_append.h"

#include <algorithm>
#include <cmath>

#include "support/float_types.h"

namespace llama_steer::cpu {
namespace {

/// Pair (i, i + D/2) turns by the position's angle.
void Rotate(float* head, const float* turn, int32_t pairs) {
  for (int32_t i = 0; i < pairs; ++i) {
    const float cosine = turn[i];
    const float sine = turn[pairs + i];
    const float low = head[i];
    const float high = head[pairs + i];
    head[i] = low * cosine - high * sine;
    head[pairs + i] = high * cosine + low * sine;
  }
}

void StoreElement(float value, float* to) { *to = value; }
void StoreElement(float value, uint16_t* to) { *to = Bf16FromFloat(value); }

template <class Element>
void AppendHead(const float* k, const float* v, int32_t head_size, int32_t slot, uint8_t* page) {
  auto* keys = reinterpret_cast<Element*>(page);
  Element* values = keys + kPageTokens * head_size;
  for (int32_t i = 0; i < head_size; ++i) {
    StoreElement(k[i], keys + i * kPageTokens + slot);
    StoreElement(v[i], values + slot * head_size + i);
  }
}

}  // namespace

void RopeCache::Cover(const RopeTable& rope, int32_t last_position) {
  if (rope.inverse_frequencies != inverse_frequencies_) {
    inverse_frequencies_ = rope.inverse_frequencies;
    pairs_ = inverse_frequencies_.size();
    values_.clear();
  }
  const size_t row = 2 * pairs_;
  const size_t covered = values_.size() / row;
  const auto wanted = static_cast<size_t>(last_position) + 1;
  if (wanted <= covered) return;
  values_.resize(std::max(wanted, 2 * covered) * row);
  for (size_t position = covered; position < values_.size() / row; ++position) {
    for (size_t i = 0; i < pairs_; ++i) {
      // The angle is float32, as in transformers; its cosine and sine are exact to float32.
      const float angle = static_cast<float>(position) * inverse_frequencies_[i];
      values_[position * row + i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      values_[position * row + pairs_ + i] =
          static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
}

void RopeAppendKv(const RopeCache& rope, const StepTables& step, int32_t layer, float* q, float* k,
                  const float* v, int32_t query_heads, CpuKvCache& cache, ThreadPool& pool) {
  const KvCacheShape& shape = cache.shape;
  const int32_t head_size = shape.head_size;
  const int32_t pairs = head_size / 2;

  const auto append_row = [&](const SequenceSpan& span, int32_t row) {
    const int32_t position = span.first_position + row - span.first_row;
    const float* turn = rope.Row(position);
    float* q_row = q + static_cast<int64_t>(row) * query_heads * head_size;
    for (int32_t head = 0; head < query_heads; ++head)
      Rotate(q_row + head * head_size, turn, pairs);

    const int32_t block =
        step.block_table[static_cast<size_t>(span.block_table_offset + position / kPageTokens)];
    const int64_t kv_offset = static_cast<int64_t>(row) * shape.kv_heads * head_size;
    for (int32_t head = 0; head < shape.kv_heads; ++head) {
      float* k_head = k + kv_offset + head * head_size;
      const float* v_head = v + kv_offset + head * head_size;
      Rotate(k_head, turn, pairs);
      uint8_t* page = cache.Page(layer, block, head);
      const int32_t slot = position % kPageTokens;
      if (shape.dtype == DType::kF32) {
        AppendHead<float>(k_head, v_head, head_size, slot, page);
      } else {
        AppendHead<uint16_t>(k_head, v_head, head_size, slot, page);
      }
    }
  };
  // Rows are short: hand out a sequence's rows in pieces.
  constexpr int32_t kRowsPerPiece = 16;
  struct Piece {
    const SequenceSpan* span;
    int32_t first;
    int32_t last;
  };
  std::vector<Piece> pieces;
  for (const SequenceSpan& span : step.sequences) {
    const int32_t end = span.first_row + span.row_count;
    for (int32_t first = span.first_row; first < end; first += kRowsPerPiece) {
      pieces.push_back({&span, first, std::min(end, first + kRowsPerPiece)});
    }
  }
  pool.ParallelFor(static_cast<int64_t>(pieces.size()), [&](int64_t index, int32_t) {
    const Piece& piece = pieces[static_cast<size_t>(index)];
    for (int32_t row = piece.first; row < piece.last; ++row) append_row(*piece.span, row);
  });
}

}  // namespace llama_steer::cpu
