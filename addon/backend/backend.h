// THE device seam. The layer loop (model/llama.cc) is written once against this interface; a
// backend knows tensors, tables and streams, and knows nothing of requests.
//
// Conventions
//   T  rows (tokens) of this step        d  hidden size          V  vocabulary size
//   Hq query heads, Hk key/value heads, D  head size             S  steering slots
// Activations are opaque to the loop; a backend picks their storage type (float32 on the CPU).
// Host tables given to an op stay valid and unchanged until the next Sync(), or the AwaitStep of
// their step.
//
// The promise every backend keeps: the arithmetic of a row, and its order, depend on that row
// alone, never on the other rows of the step, on how the prompt was cut into steps, or on the
// number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "support/status.h"
#include "support/tensor_view.h"

namespace llama_steer {

/// What runs the model; reported to clients and stored beside every result.
struct DeviceInfo {
  std::string kind;  // "cpu", "cuda"
  std::string name;  // processor or GPU model
  std::string isa;   // "avx2", "avx512", "neon", "sm_90a", ...
  int32_t threads = 0;
};

/// A matrix of activations on the device, `[rows, cols]`, row-major.
struct Activations {
  void* data = nullptr;
  int64_t rows = 0;  // capacity
  int64_t cols = 0;
};

/// How weights are held on the device.
enum class WeightFormat : uint8_t {
  kAsStored,  // the checkpoint's own type; on the CPU the mapped bytes themselves
  kBF16,      // rounded to bf16 where the checkpoint holds float32 or float16
  kInt8,      // groups of 32 along a row, quantised at load
  kFp8,       // e4m3, a float32 scale a row, quantised at load; see HasWeightFormat
};

/// A weight on the device, made by LoadWeight; `[rows = outputs, cols = inputs]`.
class Weight {
 public:
  virtual ~Weight() = default;
  int64_t rows = 0;
  int64_t cols = 0;
  DType dtype = DType::kBF16;
};

/// Keys and values of all layers, in blocks of `block_tokens` tokens. The layout inside a block
/// is the backend's own.
struct KvCacheShape {
  int32_t layers = 0;
  int32_t blocks = 0;
  int32_t block_tokens = 16;
  int32_t kv_heads = 0;
  int32_t head_size = 0;
  DType dtype = DType::kBF16;  // kBF16 or kF32
};

class KvCache {
 public:
  virtual ~KvCache() = default;
  KvCacheShape shape;
};

/// Consecutive rows of the step that belong to one sequence.
struct SequenceSpan {
  int32_t first_row = 0;
  int32_t row_count = 0;
  int32_t first_position = 0;      // absolute position of first_row; the context is all before it
  int32_t block_table_offset = 0;  // this sequence's table starts here in block_table
};

/// The tables of one step. A token at position p lives in
/// block `block_table[block_table_offset + p / block_tokens]`, at offset `p % block_tokens`.
struct StepTables {
  std::span<const int32_t> token_ids;  // [T]
  std::span<const int32_t> positions;  // [T]
  std::span<const SequenceSpan> sequences;
  std::span<const int32_t> block_table;
  /// Empty, or [T]: not negative, the row's token is the one that this result of the last
  /// BeginSample is going to be, whatever token_ids says. See Backend::RunsAhead.
  std::span<const int32_t> drawn{};
};

/// One output of a projection: y[t, :] = weight · x[t, :] + bias.
struct LinearTarget {
  const Weight* weight = nullptr;
  const Weight* bias = nullptr;  // [1, outputs] or null
  Activations output;            // [T, outputs]
};

/// Both factors of a LoRA adapter for one projection, made by LoadLora.
class LoraWeight {
 public:
  virtual ~LoraWeight() = default;
  int64_t inputs = 0;
  int64_t outputs = 0;
  int64_t rank = 0;
  float scale = 1.0f;
};

/// What one adapter adds to one projection of consecutive rows of the step.
struct LoraTerm {
  const LoraWeight* weight = nullptr;
  int32_t first_row = 0;
  int32_t row_count = 0;
  Activations output;  // [T, outputs] of the projection, added to
};

/// Frequencies of the rotary embedding in Hugging Face's "rotate half" layout:
/// pair (i, i + D/2) turns by position * inverse_frequencies[i].
struct RopeTable {
  std::vector<float> inverse_frequencies;  // [D / 2], scaling already applied
};

enum class SteerKind : uint8_t { kAdd, kProjectOut, kClamp, kScaleComponent };

/// One operation on the residual stream after one block (formulas: docs/steering.md).
struct SteerOp {
  SteerKind kind = SteerKind::kAdd;
  bool preserve_norm = false;
  bool inert = false;          // coefficient 0: counted in the proof, arithmetic skipped
  bool gated = false;          // acts only where SteerProof::gate of its steering is kOpen
  int32_t steering_index = 0;  // which steering of the request, column of the proof
  int32_t vector_row = 0;      // from PutVectorRow
  float coefficient = 1.0f;
  float clamp_min = 0.0f;
  float clamp_max = 0.0f;
  int32_t position_begin = 0;  // acts on positions in [begin, end)
  int32_t position_end = 0;
};

struct SteerOpRange {
  int32_t begin = 0;
  int32_t end = 0;
};

enum class GateMetric : uint8_t { kDot, kCosine };
enum class GateComparator : uint8_t { kAbove, kBelow };
enum class GateState : uint32_t { kNotEvaluated, kClosed, kOpen };

/// The condition of a steering on each token, evaluated on the residual stream after one block,
/// before any steering of that block. score = h · v, or h · v̂ / ‖h‖ for kCosine; the gate is open
/// when the score is strictly above (below) the threshold. Score and outcome go to the proof of
/// the row's steering; the operations of this block and of later ones read the outcome there.
struct SteerGate {
  GateMetric metric = GateMetric::kDot;
  GateComparator comparator = GateComparator::kAbove;
  int32_t steering_index = 0;
  int32_t vector_row = 0;
  float threshold = 0.0f;
  int32_t position_begin = 0;  // evaluated at positions in [begin, end)
  int32_t position_end = 0;
};

/// What the kernel reports for one token and one steering, summed over layers in layer order.
struct SteerProof {
  float delta_ratio_sum = 0.0f;  // sum of ‖Δh‖ / ‖h‖ over the layers it acted on
  uint32_t layers_acted = 0;     // number of those layers
  float gate_score = 0.0f;       // also when it is not finite; the gate is then as compared
  GateState gate = GateState::kNotEvaluated;
};

/// Steering of one step. Slot 0 means "not steered".
struct SteerTables {
  std::span<const int32_t> row_slot;     // [T]
  std::span<const SteerOpRange> ranges;  // [layers, S], range of `ops` for (block, slot)
  int32_t slots = 0;                     // S, slot 0 included
  std::span<const SteerOp> ops;          // applied in order
  SteerProof* proof = nullptr;           // [T, proof_stride], zeroed by the caller, added to
  int32_t proof_stride = 0;              // steerings of a request at most
  std::span<const SteerGate> gates{};    // of gated operations; mostly none
  std::span<const SteerOpRange>
      gate_ranges{};  // [layers, S], range of `gates`; empty without gates
};

/// Reads the score h · v of one row after one block, after the steerings of that block.
struct ProbeOp {
  int32_t probe_index = 0;     // column of the scores
  int32_t vector_row = 0;      // from PutVectorRow
  int32_t position_begin = 0;  // read at positions in [begin, end)
  int32_t position_end = 0;
};

/// Probes of one step. Slot 0 means "not probed".
struct ProbeTables {
  std::span<const int32_t> row_slot;     // [T]
  std::span<const SteerOpRange> ranges;  // [layers, S], range of `ops` for (block, slot)
  int32_t slots = 0;                     // S, slot 0 included
  std::span<const ProbeOp> ops;
  float* scores = nullptr;  // host memory, [T, score_stride]; only what is read is written
  int32_t score_stride = 0;
};

/// Points of the forward pass that can be captured. A point and a block give a site index.
enum class CapturePoint : uint8_t {
  kEmbedding,       // residual stream before block 0; block is 0
  kAttentionDelta,  // what attention adds to the residual stream
  kMlpDelta,        // what the MLP adds
  kResidualBeforeSteering,
  kResidual,   // after the block, steered
  kFinalNorm,  // block is the last one
};
inline constexpr int32_t kCapturePointCount = 6;
constexpr int32_t CaptureSite(CapturePoint point, int32_t block) {
  return block * kCapturePointCount + static_cast<int32_t>(point);
}

/// Capture of one step. Slot 0 means "not captured". The row of token t at site s goes to staging
/// row `row_base[t] + site_ordinal[slot, s]` when that ordinal is not negative.
struct CaptureTables {
  std::span<const int32_t> row_slot;      // [T]
  std::span<const int32_t> row_base;      // [T]
  std::span<const int32_t> site_ordinal;  // [slots, layers * kCapturePointCount]
  int32_t sites = 0;                      // layers * kCapturePointCount
  float* staging = nullptr;               // host memory, [staging_rows, d] float32
  int64_t staging_rows = 0;
};

/// A forward pass as a whole, for backends that can replay one that they have seen before.
struct ForwardPass {
  uint64_t model = 0;              // tells apart models that share a backend
  const KvCache* cache = nullptr;  // the only one of the pass
  int32_t query_heads = 0;
  int64_t max_rows = 0;  // that every buffer of the pass has room for
  StepTables tables;
  std::span<const int32_t> logit_rows;
  const SteerTables* steering = nullptr;
  bool observed = false;  // captures, probes or adapters take part
};

/// Where in a block the fused kernel stands.
enum class Sublayer : uint8_t { kEmbedding, kAttention, kMlp };

/// One pass over each row: residual += delta; gates and steering (after kMlp only); capture and
/// probes; then normed = RMSNorm(residual) * norm_weight. All arithmetic in float32.
struct ResidualSteerNorm {
  int32_t block = 0;
  Sublayer sublayer = Sublayer::kEmbedding;
  bool is_last = false;                 // normed is then the output of the final norm
  Activations residual;                 // [T, d], in and out
  const Activations* delta = nullptr;   // [T, d]; null after the embedding
  const Weight* norm_weight = nullptr;  // [1, d]
  float epsilon = 1e-5f;
  Activations normed;                      // [T, d], out
  const SteerTables* steering = nullptr;   // null: no row of the step is steered
  const CaptureTables* capture = nullptr;  // null: no row of the step is captured
  const ProbeTables* probes = nullptr;     // null: no row of the step is probed
};

/// An additive change of one logit.
struct TokenBias {
  uint32_t token_id = 0;
  float bias = 0.0f;
};

/// A token already seen, for the penalties.
struct SeenToken {
  uint32_t token_id = 0;
  uint32_t generated_count = 0;  // times generated; 0 when it only stands in the prompt
};

/// How to draw one token from row `logits_row`, or to score a given one.
/// Order: logit bias, repetition (prompt and generated), presence and frequency (generated)
/// penalties, temperature, top-k, top-p, min-p. Logprobs are of the unmodified logits.
struct SampleRow {
  int32_t logits_row = 0;
  int64_t forced_token = -1;  // >= 0: score this token, draw nothing
  float temperature = 1.0f;   // 0: greedy, ties to the lowest token id
  float top_p = 1.0f;
  float min_p = 0.0f;
  uint32_t top_k = 0;  // 0: off
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  std::span<const SeenToken> seen;
  std::span<const TokenBias> bias;
  uint64_t seed = 0;        // Philox key
  uint32_t completion = 0;  // Philox counter
  uint32_t position = 0;    // Philox counter: absolute position of the token being drawn
  bool logprob = false;     // compute the logprob of the token
  uint32_t top_logprobs = 0;
  /// >= 0: also compute KL(softmax(logits_row) || softmax(reference_row)) over the whole
  /// vocabulary, of the unmodified logits, accumulated in float64.
  int32_t reference_row = -1;
};

struct TokenLogprob {
  uint32_t token_id = 0;
  float logprob = 0.0f;  // natural logarithm
};

struct SampleResult {
  uint32_t token_id = 0;
  float logprob = 0.0f;
  std::vector<TokenLogprob> top;  // by falling logprob, ties by rising id
  bool nonfinite = false;         // the logits held NaN or +Inf; token_id means nothing
  /// Nats, not negative; exactly 0 for equal rows. NaN unless it was asked for and both rows are
  /// usable.
  double kl = std::numeric_limits<double>::quiet_NaN();
};

struct BlockCopy {
  int32_t source = 0;
  int32_t destination = 0;
};

/// The operations. Each is batched over the rows of a step and fused as far as it can be.
/// Ops run in the order they are called; results are visible to the host after Sync().
class Backend {
 public:
  virtual ~Backend() = default;

  virtual const DeviceInfo& info() const = 0;
  /// Memory that a KV cache may take now, once weights and activations are there; 0: the device
  /// does not say, the engine has a size of its own.
  virtual StatusOr<uint64_t> KvCacheBudgetBytes() const { return uint64_t{0}; }

  /// Whether LoadWeight takes the format.
  virtual bool HasWeightFormat(WeightFormat format) const { return format != WeightFormat::kFp8; }

  // -- memory, outside of steps --
  virtual StatusOr<Activations> AllocateActivations(int64_t rows, int64_t cols) = 0;
  /// The view's bytes must outlive the weight. Rows of a matrix are outputs.
  virtual StatusOr<std::unique_ptr<Weight>> LoadWeight(const TensorView& view,
                                                       WeightFormat format) = 0;
  /// a `[rank, inputs]`, b `[outputs, rank]`, both float32, float16 or bfloat16. Copies them: the
  /// views' bytes may go when it returns.
  virtual StatusOr<std::unique_ptr<LoraWeight>> LoadLora(const TensorView& a, const TensorView& b,
                                                         float scale) = 0;
  virtual StatusOr<std::unique_ptr<KvCache>> AllocateKvCache(const KvCacheShape& shape) = 0;
  /// Copies one vector, `[d]` float32, to the device; rows are reused after DropVectorRow.
  virtual StatusOr<int32_t> PutVectorRow(std::span<const float> row) = 0;
  virtual void DropVectorRow(int32_t row) = 0;

  // -- one step --
  /// Before the operations of a forward pass. True: it was replayed as a whole, and no operation is
  /// called for it. False: they are, then EndPass.
  virtual StatusOr<bool> BeginPass(const ForwardPass&) { return false; }
  /// `complete`: false when an operation failed.
  virtual Status EndPass(bool /*complete*/) { return Status::Ok(); }
  /// residual[t, :] = table[token_ids[t], :]
  virtual Status Embed(const Weight& table, const StepTables& step, Activations residual) = 0;
  /// Several projections of the same `rows` rows of x.
  virtual Status Linear(Activations x, int64_t rows, std::span<const LinearTarget> targets) = 0;
  /// output[t, :] += scale · b (a x[t, :]) for the rows of each term, in float32; other rows are
  /// not touched. x is what the projections of these outputs were given; no two terms name the same
  /// row of the same output. Called after Linear, and only when a row of the step has an adapter.
  virtual Status AddLora(Activations x, std::span<const LoraTerm> terms) = 0;
  /// Rotates q `[T, Hq * D]` and k `[T, Hk * D]` in place and writes k and v to the cache.
  virtual Status RopeAppendKv(const RopeTable& rope, const StepTables& step, int32_t layer,
                              Activations q, Activations k, Activations v, KvCache& cache) = 0;
  /// Causal attention over the pages, scale 1/sqrt(D): output `[T, Hq * D]`.
  virtual Status Attention(const StepTables& step, int32_t layer, Activations q,
                           const KvCache& cache, Activations output) = 0;
  virtual Status ApplyResidualSteerNorm(const ResidualSteerNorm& args, const StepTables& step) = 0;
  /// gate[t, :] = silu(gate[t, :]) * up[t, :], in place.
  virtual Status SiluMul(int64_t rows, Activations gate, Activations up) = 0;
  /// Linear, AddLora if there are adapters, SiluMul: in gate.output, with their bits. What
  /// up.output then holds is undefined. A backend may take them in one pass.
  virtual Status GatedLinear(Activations x, int64_t rows, const LinearTarget& gate,
                             const LinearTarget& up, std::span<const LoraTerm> adapters) {
    const LinearTarget targets[] = {gate, up};
    LLAMA_STEER_RETURN_IF_ERROR(Linear(x, rows, targets));
    if (!adapters.empty()) LLAMA_STEER_RETURN_IF_ERROR(AddLora(x, adapters));
    return SiluMul(rows, gate.output, up.output);
  }
  /// Linear to q, k and v, AddLora if there are adapters, RopeAppendKv: in q's output and the
  /// cache, with their bits. What the outputs of k and v then hold is undefined. A backend may take
  /// them in one pass.
  virtual Status QkvRopeAppend(Activations x, std::span<const LinearTarget, 3> qkv,
                               std::span<const LoraTerm> adapters, const RopeTable& rope,
                               const StepTables& step, int32_t layer, KvCache& cache) {
    LLAMA_STEER_RETURN_IF_ERROR(Linear(x, static_cast<int64_t>(step.positions.size()), qkv));
    if (!adapters.empty()) LLAMA_STEER_RETURN_IF_ERROR(AddLora(x, adapters));
    return RopeAppendKv(rope, step, layer, qkv[0].output, qkv[1].output, qkv[2].output, cache);
  }
  /// output[i, :] = x[rows[i], :]
  virtual Status GatherRows(Activations x, std::span<const int32_t> rows, Activations output) = 0;
  /// to[i, :] = rows[i][0 .. d), from float32 in host memory (the logit lens).
  virtual Status UploadRows(std::span<const float* const> rows, Activations to) = 0;
  /// logits `[rows, V]`; one result a SampleRow, in order. Complete on return.
  virtual Status Sample(Activations logits, std::span<const SampleRow> rows,
                        std::span<SampleResult> results) = 0;

  // -- a step begun while another runs --
  /// Whether the two below are there: a step then ends with BeginSample, and the next one may be
  /// begun before AwaitStep. Steps run in the order in which they were begun, and copies of KV
  /// blocks and vectors in between them.
  virtual bool RunsAhead() const { return false; }
  /// Sample, without waiting. Tables and rows of the step stay valid and unchanged until its
  /// AwaitStep. At most two steps are begun and not awaited; the second one captures nothing, and
  /// until the first has been awaited nothing else is asked.
  virtual Status BeginSample(Activations /*logits*/, std::span<const SampleRow> /*rows*/) {
    return Status::Internal("this backend does not run ahead");
  }
  /// Waits for the first of the steps that have been begun, and for nothing after it: results,
  /// proofs, scores and captures are then what Sample and Sync would have left. The token of a
  /// result that is not finite may be any of the vocabulary.
  virtual Status AwaitStep(std::span<const SampleRow> /*rows*/,
                           std::span<SampleResult> /*results*/) {
    return Status::Internal("this backend does not run ahead");
  }

  /// Copies whole KV blocks of all layers.
  virtual Status CopyKvBlocks(std::span<const BlockCopy> copies, KvCache& cache) = 0;
  /// x = values, `[rows, cols]` float32 (tests). Complete on return.
  virtual Status Upload(std::span<const float> values, Activations x) = 0;
  /// Copies activations to the host as float32, `[rows, cols]` (tests). Complete on return.
  virtual Status Download(Activations x, int64_t rows, std::span<float> out) = 0;
  virtual Status Sync() = 0;
};

/// `cpu_isa`: "auto", "avx2", "avx512" or "neon"; refused when the machine lacks it.
struct CpuBackendOptions {
  int32_t threads = 0;  // 0: one for each core
  std::string isa = "auto";
};
StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const CpuBackendOptions& options);

}  // namespace llama_steer
