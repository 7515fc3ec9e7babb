#include "pass_tables.h"

#include <algorithm>
#include <bit>

namespace llama_steer::cuda {
namespace {

constexpr int32_t kMaxPassRows = 256;
constexpr int32_t kRowStep = 8;
constexpr int32_t kPagesOfSplit = kSplitTokens / kPageTokens;
constexpr size_t kAlignment = 16;

size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

int32_t PaddedRows(int32_t rows, int64_t max_rows) {
  if (rows <= kRowStep) return rows;
  const int32_t padded = (rows + kRowStep - 1) / kRowStep * kRowStep;
  return static_cast<int32_t>(std::min<int64_t>(padded, max_rows));
}

bool WantsAllLogits(const ForwardPass& pass) {
  if (pass.logit_rows.size() != pass.tables.sequences.size()) return false;
  for (size_t i = 0; i < pass.logit_rows.size(); ++i) {
    if (pass.logit_rows[i] != static_cast<int32_t>(i)) return false;
  }
  return true;
}

}  // namespace

std::optional<PassShape> ShapeOf(const ForwardPass& pass) {
  const std::span<const SequenceSpan> spans = pass.tables.sequences;
  const auto rows = static_cast<int32_t>(pass.tables.token_ids.size());
  const bool plain = !pass.observed && rows > 0 && rows <= kMaxPassRows &&
                     spans.size() == pass.tables.token_ids.size() && rows <= pass.max_rows &&
                     pass.query_heads / pass.cache->shape.kv_heads <= kDecodeRows;
  if (!plain || !WantsAllLogits(pass)) return std::nullopt;
  int32_t splits = 1;
  for (size_t i = 0; i < spans.size(); ++i) {
    if (spans[i].row_count != 1 || spans[i].first_row != static_cast<int32_t>(i)) {
      return std::nullopt;
    }
    splits = std::max(splits, spans[i].first_position / kSplitTokens + 1);
  }
  PassShape shape;
  shape.rows = PaddedRows(rows, pass.max_rows);
  shape.splits = static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(splits)));
  if (pass.steering == nullptr) return shape;
  const SteerTables& steering = *pass.steering;
  if (!steering.gates.empty() || steering.slots <= 0 || steering.slots > shape.rows + 1) {
    return std::nullopt;
  }
  shape.layers = static_cast<int32_t>(steering.ranges.size()) / steering.slots;
  shape.proof_stride = steering.proof_stride;
  return shape;
}

template <class T>
std::span<T> PassTables::Take(size_t count) {
  auto* first = reinterpret_cast<T*>(host_[turn_].as<std::byte>() + used_bytes_);
  used_bytes_ += Aligned(count * sizeof(T));
  return {first, count};
}

template <class T>
const T* PassTables::OnDevice(std::span<T> host) const {
  const auto offset = reinterpret_cast<std::byte*>(host.data()) - host_[turn_].as<std::byte>();
  return reinterpret_cast<const T*>(device_.as<std::byte>() + offset);
}

void PassTables::WriteStep(const ForwardPass& pass, const PassShape& shape) {
  const auto rows = static_cast<size_t>(shape.rows);
  const auto token_ids = Take<int32_t>(rows);
  const auto drawn = Take<int32_t>(rows);
  const auto positions = Take<int32_t>(rows);
  const auto row_spans = Take<int32_t>(rows);
  const auto row_blocks = Take<int32_t>(rows);
  const auto items = Take<int32_t>(rows);
  const auto logit_rows = Take<int32_t>(rows);
  const auto spans = Take<SequenceSpan>(rows);
  const int32_t pages_of_row = shape.splits * kPagesOfSplit;
  const auto block_table = Take<int32_t>(rows * static_cast<size_t>(pages_of_row));
  for (size_t i = 0; i < rows; ++i) {
    const auto row = static_cast<int32_t>(i);
    items[i] = row;
    logit_rows[i] = row;
    token_ids[i] = positions[i] = 0;
    drawn[i] = row_spans[i] = row_blocks[i] = -1;
    spans[i] = {row, 0, 0, row * pages_of_row};
    if (i >= pass.tables.sequences.size()) continue;
    const SequenceSpan& span = pass.tables.sequences[i];
    const int32_t last_page = span.first_position / kPageTokens;
    const auto from = pass.tables.block_table.subspan(static_cast<size_t>(span.block_table_offset),
                                                      static_cast<size_t>(last_page) + 1);
    std::ranges::copy(from, block_table.begin() + row * pages_of_row);
    token_ids[i] = pass.tables.token_ids[i];
    if (!pass.tables.drawn.empty()) drawn[i] = pass.tables.drawn[i];
    positions[i] = span.first_position;
    row_spans[i] = row;
    row_blocks[i] = from.back();
    spans[i].row_count = 1;
    spans[i].first_position = span.first_position;
  }
  step_ = {.rows = shape.rows,
           .token_ids = OnDevice(token_ids),
           .drawn = OnDevice(drawn),
           .positions = OnDevice(positions),
           .row_spans = OnDevice(row_spans),
           .row_blocks = OnDevice(row_blocks),
           .spans = OnDevice(spans),
           .block_table = OnDevice(block_table)};
  items_ = {.prefill = nullptr,
            .prefill_count = 0,
            .decode = OnDevice(items),
            .decode_count = shape.rows,
            .max_splits = shape.splits};
  logit_rows_ = OnDevice(logit_rows);
}

void PassTables::WriteSteering(const SteerTables& tables, const PassShape& shape,
                               std::span<const DeviceSteerOp> ops) {
  const auto rows = static_cast<size_t>(shape.rows);
  const size_t slots = rows + 1;
  const auto row_slot = Take<int32_t>(rows);
  const auto ranges = Take<SteerOpRange>(slots * static_cast<size_t>(shape.layers));
  const auto proof = Take<SteerProof>(rows * static_cast<size_t>(shape.proof_stride));
  std::ranges::fill(row_slot, 0);
  std::ranges::copy(tables.row_slot, row_slot.begin());
  std::ranges::fill(ranges, SteerOpRange{});
  const auto given = static_cast<size_t>(tables.slots);
  for (size_t layer = 0; layer < static_cast<size_t>(shape.layers); ++layer) {
    std::ranges::copy(tables.ranges.subspan(layer * given, given),
                      ranges.begin() + static_cast<std::ptrdiff_t>(layer * slots));
  }
  std::ranges::fill(proof, SteerProof{});
  std::copy_n(tables.proof, tables.row_slot.size() * static_cast<size_t>(tables.proof_stride),
              proof.begin());
  // Last: nothing else moves with their number.
  const auto all_ops = Take<DeviceSteerOp>(ops.size());
  std::ranges::copy(ops, all_ops.begin());
  steering_ = {.row_slot = OnDevice(row_slot),
               .ranges = OnDevice(ranges),
               .slots = static_cast<int32_t>(slots),
               .ops = OnDevice(all_ops),
               .proof = const_cast<SteerProof*>(OnDevice(proof)),
               .proof_stride = shape.proof_stride};
}

Status PassTables::Upload(const ForwardPass& pass, const PassShape& shape,
                          std::span<const DeviceSteerOp> ops, const Stream& stream) {
  constexpr size_t kTables = 13;
  const auto rows = static_cast<size_t>(shape.rows);
  const size_t bytes = rows * (7 * sizeof(int32_t) + sizeof(SequenceSpan)) +
                       rows * static_cast<size_t>(shape.splits * kPagesOfSplit) * sizeof(int32_t) +
                       rows * sizeof(int32_t) +
                       (rows + 1) * static_cast<size_t>(shape.layers) * sizeof(SteerOpRange) +
                       rows * static_cast<size_t>(shape.proof_stride) * sizeof(SteerProof) +
                       ops.size_bytes() + kTables * kAlignment;
  LLAMA_STEER_RETURN_IF_ERROR(host_[turn_].Reserve(bytes));
  LLAMA_STEER_RETURN_IF_ERROR(device_.Reserve(bytes));
  used_bytes_ = 0;
  WriteStep(pass, shape);
  if (pass.steering != nullptr) WriteSteering(*pass.steering, shape, ops);
  return ToStatus(cudaMemcpyAsync(device_.as<void>(), host_[turn_].as<void>(), used_bytes_,
                                  cudaMemcpyHostToDevice, stream),
                  "copying the tables of a pass");
}

}  // namespace llama_steer::cuda
