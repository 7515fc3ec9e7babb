#include "engine/fake_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>
#include <string>

namespace llama_steer {
namespace {

size_t Index(int64_t value) { return static_cast<size_t>(value); }

float Unit(uint64_t h) { return static_cast<float>(h >> 40) * 0x1p-24f; }

uint64_t OpHash(const SteerOp& op, uint64_t vector) {
  uint64_t h = Mix(vector, static_cast<uint64_t>(op.kind));
  h = Mix(h, std::bit_cast<uint32_t>(op.coefficient));
  if (op.kind == SteerKind::kClamp) {
    h = Mix(h, std::bit_cast<uint32_t>(op.clamp_min));
    h = Mix(h, std::bit_cast<uint32_t>(op.clamp_max));
  }
  return Mix(h, op.preserve_norm ? 1 : 0);
}

}  // namespace

uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9e3779b97f4a7c15ull + b + 0x632be59bd9b4e019ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

FakeModel::FakeModel(const LlamaConfig& config, int32_t blocks, int32_t block_tokens)
    : config_(config), cells_(Index(blocks) * Index(block_tokens)) {
  info_.device.kind = "fake";
  info_.weight_dtype = "hash";
  info_.kv = {.layers = config.layers,
              .blocks = blocks,
              .block_tokens = block_tokens,
              .kv_heads = 1,
              .head_size = 1,
              .dtype = DType::kF32};
}

StatusOr<int32_t> FakeModel::PutVectorRow(std::span<const float> row) {
  uint64_t h = 1;
  for (const float value : row) h = Mix(h, std::bit_cast<uint32_t>(value));
  vectors_[next_vector_row_] = h;
  return next_vector_row_++;
}

void FakeModel::DropVectorRow(int32_t row) { vectors_.erase(row); }

StatusOr<int32_t> FakeModel::PutAdapter(const MappedLora& lora) {
  if (!adapter_status.ok()) return adapter_status;
  uint64_t h = 2;
  for (const LoraFactors& factors : lora.factors) {
    h = Mix(h, static_cast<uint64_t>(factors.layer));
    h = Mix(h, static_cast<uint64_t>(factors.module));
    h = Mix(h, std::bit_cast<uint32_t>(factors.scale));
    h = Mix(h, *static_cast<const uint32_t*>(factors.a.data));
  }
  adapters_[next_adapter_] = h;
  return next_adapter_++;
}

void FakeModel::DropAdapter(int32_t adapter) { adapters_.erase(adapter); }

/// One group of rows an adapter, in rising order.
Status FakeModel::FindAdapters(const ForwardStep& step) {
  row_adapter_.assign(step.tables.token_ids.size(), 0);
  std::set<int32_t> named;
  int32_t end = 0;
  for (const AdapterRows& group : step.adapters) {
    const auto adapter = adapters_.find(group.adapter);
    if (adapter == adapters_.end()) return Status::Internal("a dropped adapter is in use");
    if (!named.insert(group.adapter).second) return Status::Internal("an adapter's rows are apart");
    if (group.first_row < end || group.row_count <= 0) return Status::Internal("rows overlap");
    end = group.first_row + group.row_count;
    if (Index(end) > row_adapter_.size()) return Status::Internal("no such rows");
    for (int32_t row = group.first_row; row < end; ++row) {
      row_adapter_[Index(row)] = adapter->second;
    }
  }
  return Status::Ok();
}

Status FakeModel::CheckTables(const ForwardStep& step) const {
  const StepTables& tables = step.tables;
  if (tables.token_ids.size() != tables.positions.size()) {
    return Status::Internal("token_ids and positions differ in size");
  }
  std::multiset<int32_t> readers;  // blocks, once a sequence
  std::set<int32_t> written;
  int32_t rows = 0;
  for (const SequenceSpan& span : tables.sequences) {
    if (span.first_row != rows || span.row_count <= 0) return Status::Internal("spans have gaps");
    rows += span.row_count;
    const int32_t size = info_.kv.block_tokens;
    const int32_t end = span.first_position + span.row_count;
    for (int32_t b = 0; b * size < end; ++b) {
      const int32_t block = tables.block_table[Index(span.block_table_offset + b)];
      if (block < 0 || block >= info_.kv.blocks) return Status::Internal("no such block");
      readers.insert(block);
      if ((b + 1) * size > span.first_position && !written.insert(block).second) {
        return Status::Internal("two sequences write block " + std::to_string(block));
      }
    }
  }
  if (Index(rows) != tables.token_ids.size()) return Status::Internal("rows without a sequence");
  for (const int32_t block : written) {
    if (readers.count(block) > 1) {
      return Status::Internal("block " + std::to_string(block) + " is written while shared");
    }
  }
  return Status::Ok();
}

FakeModel::Cell& FakeModel::CellAt(const StepTables& tables, const SequenceSpan& span,
                                   int32_t position) {
  const int32_t size = info_.kv.block_tokens;
  const int32_t block = tables.block_table[Index(span.block_table_offset + position / size)];
  return cells_[Index(block) * Index(size) + Index(position % size)];
}

Status FakeModel::Forward(const ForwardStep& step) {
  if (on_forward) LLAMA_STEER_RETURN_IF_ERROR(on_forward(step));
  LLAMA_STEER_RETURN_IF_ERROR(CheckTables(step));
  LLAMA_STEER_RETURN_IF_ERROR(FindAdapters(step));
  row_state_.assign(step.tables.token_ids.size(), {});
  for (const SequenceSpan& span : step.tables.sequences) {
    for (int32_t i = 0; i < span.row_count; ++i) {
      if (step.tables.positions[Index(span.first_row + i)] != span.first_position + i) {
        return Status::Internal("positions are not consecutive");
      }
      LLAMA_STEER_RETURN_IF_ERROR(ComputeRow(step, span, span.first_row + i));
    }
  }
  logits_.clear();
  for (const int32_t row : step.logit_rows) logits_.push_back(row_state_[Index(row)]);
  return Status::Ok();
}

Status FakeModel::ComputeRow(const ForwardStep& step, const SequenceSpan& span, int32_t row) {
  const int32_t position = step.tables.positions[Index(row)];
  const auto token = static_cast<uint64_t>(step.tables.token_ids[Index(row)]);
  bool poisoned = token == kPoisonToken;
  is_nan_row_ = nan_token >= 0 && token == static_cast<uint64_t>(nan_token);
  uint64_t context = 0;
  for (int32_t p = 0; p < position; ++p) {
    const Cell& cell = CellAt(step.tables, span, p);
    context = Mix(context, cell.kv);
    poisoned = poisoned || cell.poisoned;
  }
  uint64_t h = Mix(token, static_cast<uint64_t>(position));
  if (row_adapter_[Index(row)] != 0) h = Mix(h, row_adapter_[Index(row)]);
  Capture(step.capture, row, CapturePoint::kEmbedding, 0, h);
  for (int32_t layer = 0; layer < config_.layers; ++layer) {
    const uint64_t attention = Mix(h, context);
    Capture(step.capture, row, CapturePoint::kAttentionDelta, layer, attention);
    const uint64_t mlp = Mix(attention, static_cast<uint64_t>(layer));
    Capture(step.capture, row, CapturePoint::kMlpDelta, layer, mlp);
    h = Mix(h, mlp);
    Capture(step.capture, row, CapturePoint::kResidualBeforeSteering, layer, h);
    // The keys and values of the last layer are made before its steering.
    if (layer + 1 == config_.layers) CellAt(step.tables, span, position) = {h, poisoned};
    if (step.steering != nullptr) {
      StatusOr<uint64_t> steered = Steer(*step.steering, row, position, layer, h);
      if (!steered.ok()) return steered.status();
      h = *steered;
    }
    Capture(step.capture, row, CapturePoint::kResidual, layer, h);
    if (step.probes != nullptr) {
      LLAMA_STEER_RETURN_IF_ERROR(Probe(*step.probes, row, position, layer, h));
    }
  }
  Capture(step.capture, row, CapturePoint::kFinalNorm, config_.layers - 1, Mix(h, 99));
  row_state_[Index(row)] = {h, poisoned};
  return Status::Ok();
}

StatusOr<uint64_t> FakeModel::Steer(const SteerTables& tables, int32_t row, int32_t position,
                                    int32_t layer, uint64_t h) {
  const int32_t slot = tables.row_slot[Index(row)];
  if (slot == 0) return h;
  LLAMA_STEER_RETURN_IF_ERROR(EvaluateGates(tables, row, slot, position, layer, h));
  const SteerOpRange range = tables.ranges[Index(layer * tables.slots + slot)];
  for (int32_t i = range.begin; i < range.end; ++i) {
    const SteerOp& op = tables.ops[Index(i)];
    if (position < op.position_begin || position >= op.position_end) continue;
    const SteerProof& gated = tables.proof[row * tables.proof_stride + op.steering_index];
    if (op.gated && gated.gate != GateState::kOpen) continue;
    const auto vector = vectors_.find(op.vector_row);
    if (vector == vectors_.end()) return Status::Internal("a dropped vector is in use");
    SteerProof& proof = tables.proof[row * tables.proof_stride + op.steering_index];
    ++proof.layers_acted;
    if (op.inert) continue;
    h = Mix(h, OpHash(op, vector->second));
    proof.delta_ratio_sum += Unit(h);
  }
  return h;
}

Status FakeModel::EvaluateGates(const SteerTables& tables, int32_t row, int32_t slot,
                                int32_t position, int32_t layer, uint64_t h) {
  if (tables.gates.empty()) return Status::Ok();
  const SteerOpRange range = tables.gate_ranges[Index(layer * tables.slots + slot)];
  for (int32_t i = range.begin; i < range.end; ++i) {
    const SteerGate& gate = tables.gates[Index(i)];
    if (position < gate.position_begin || position >= gate.position_end) continue;
    const auto vector = vectors_.find(gate.vector_row);
    if (vector == vectors_.end()) return Status::Internal("a dropped vector is in use");
    const uint64_t metric = gate.metric == GateMetric::kDot ? 0 : 1;
    SteerProof& proof = tables.proof[row * tables.proof_stride + gate.steering_index];
    proof.gate_score = is_nan_row_ ? NAN : Unit(Mix(Mix(h, vector->second), metric)) - 0.5f;
    const bool open = gate.comparator == GateComparator::kAbove ? proof.gate_score > gate.threshold
                                                                : proof.gate_score < gate.threshold;
    proof.gate = open ? GateState::kOpen : GateState::kClosed;
  }
  return Status::Ok();
}

Status FakeModel::Probe(const ProbeTables& tables, int32_t row, int32_t position, int32_t layer,
                        uint64_t h) {
  const int32_t slot = tables.row_slot[Index(row)];
  if (slot == 0) return Status::Ok();
  const SteerOpRange range = tables.ranges[Index(layer * tables.slots + slot)];
  for (int32_t i = range.begin; i < range.end; ++i) {
    const ProbeOp& op = tables.ops[Index(i)];
    if (position < op.position_begin || position >= op.position_end) continue;
    const auto vector = vectors_.find(op.vector_row);
    if (vector == vectors_.end()) return Status::Internal("a dropped vector is in use");
    tables.scores[row * tables.score_stride + op.probe_index] =
        is_nan_row_ ? NAN : Unit(Mix(h, vector->second));
  }
  return Status::Ok();
}

void FakeModel::Capture(const CaptureTables* tables, int32_t row, CapturePoint point, int32_t layer,
                        uint64_t h) const {
  if (tables == nullptr) return;
  const int32_t slot = tables->row_slot[Index(row)];
  if (slot == 0) return;
  const int32_t ordinal =
      tables->site_ordinal[Index(slot * tables->sites + CaptureSite(point, layer))];
  if (ordinal < 0) return;
  const int64_t staging_row = tables->row_base[Index(row)] + ordinal;
  if (staging_row >= tables->staging_rows) return;  // the poisoned row then fails the test
  for (int32_t i = 0; i < config_.hidden_size; ++i) {
    tables->staging[staging_row * config_.hidden_size + i] = Unit(Mix(h, static_cast<uint64_t>(i)));
  }
}

Status FakeModel::Unembed(std::span<const float* const> rows, bool normalise) {
  logits_.clear();
  for (const float* row : rows) {
    uint64_t h = normalise ? 3 : 4;
    for (int32_t i = 0; i < config_.hidden_size; ++i) h = Mix(h, std::bit_cast<uint32_t>(row[i]));
    logits_.push_back({h, unembeds_nonfinite});
  }
  most_unembedded_rows = std::max(most_unembedded_rows, rows.size());
  return Status::Ok();
}

Status FakeModel::Sample(std::span<const SampleRow> rows, std::span<SampleResult> results) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const SampleRow& row = rows[i];
    const Cell& logits = logits_[Index(row.logits_row)];
    SampleResult& result = results[i];
    result.nonfinite = logits.poisoned;
    uint64_t h = logits.kv;
    for (const TokenBias& bias : row.bias) h = Mix(h, bias.token_id);
    uint64_t seen = 0;
    for (const SeenToken& token : row.seen) seen += Mix(token.token_id, token.generated_count);
    if (row.temperature != 0.0f) h = Mix(Mix(h, row.seed), Mix(row.completion, row.position));
    // The poison token is never drawn.
    const auto vocab = static_cast<uint64_t>(config_.vocab_size);
    const uint64_t drawn = Mix(h, seen) % (vocab - 8) + 8;
    result.token_id = row.forced_token >= 0 ? static_cast<uint32_t>(row.forced_token)
                                            : static_cast<uint32_t>(drawn);
    if (row.reference_row >= 0 && compares) {
      const Cell& reference = logits_[Index(row.reference_row)];
      const bool same = reference.kv == logits.kv;
      result.kl = same ? 0.0 : static_cast<double>(Unit(Mix(logits.kv, reference.kv)));
      if (reference.poisoned) result.kl = NAN;
    }
    if (row.logprob) result.logprob = -Unit(Mix(logits.kv, result.token_id));
    for (uint32_t k = 0; k < row.top_logprobs; ++k) {
      result.top.push_back({.token_id = k, .logprob = -Unit(Mix(logits.kv, k))});
    }
  }
  return Status::Ok();
}

Status FakeModel::CopyKvBlocks(std::span<const BlockCopy> copies) {
  const size_t size = Index(info_.kv.block_tokens);
  for (const BlockCopy& copy : copies) {
    for (size_t i = 0; i < size; ++i) {
      cells_[Index(copy.destination) * size + i] = cells_[Index(copy.source) * size + i];
    }
  }
  return Status::Ok();
}

}  // namespace llama_steer
