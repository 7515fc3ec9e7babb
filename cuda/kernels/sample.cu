#include "device/philox.h"
#include "device/reduce.h"
#include "kernels/sample.h"

namespace llama_steer::cuda {
namespace {

constexpr int kMaxThreads = 512;
constexpr int kSmallThreads = 64;  // for vocabularies that would leave most threads idle
constexpr int32_t kSmallVocabulary = 4096;
constexpr int kDigits = 256;                    // of one byte of a key
constexpr double kMassUnits = 1099511627776.0;  // 2^40 = the mass of the most probable token

constexpr float kLargestFloat = 3.402823466e+38f;
constexpr int32_t kNoId = 0x7fffffff;

using Mass = unsigned long long;

struct Shared {
  BlockSum<double, 3>::Storage sums;
  float maxima[2][kMaxThreads / kWarpThreads];
  int32_t lowest[2][kMaxThreads / kWarpThreads];
  Mass digits[kDigits];
  Mass parts[kMaxThreads];
  uint32_t token;
};

__device__ __forceinline__ float MinusInfinity() { return __uint_as_float(0xff800000u); }

/// Rises with the logit; equal logits (+0 and -0 too) have equal keys.
__device__ __forceinline__ uint32_t KeyOf(float logit) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

/// What may be drawn: keys above `key`, and of those equal to it ids up to `last_id`.
struct Kept {
  uint32_t key = 0;
  int32_t last_id = kNoId;
  __device__ __forceinline__ bool Has(float logit, int32_t id) const {
    const uint32_t own = KeyOf(logit);
    return own > key || (own == key && id <= last_id);
  }
};

struct Largest {
  float value;
  int32_t id;  // the lowest that has it
  bool nan;
};

class RowSampler {
 public:
  __device__ RowSampler(const SampleParams& params, Shared& shared)
      : params_(params),
        shared_(shared),
        sum_(&shared.sums),
        row_(params.rows[blockIdx.x]),
        size_(params.vocabulary),
        logits_(params.logits + static_cast<int64_t>(row_.logits_row) * params.vocabulary) {}

  __device__ void Run() {
    DeviceSampleResult result;
    const Largest largest = FindLargest(logits_);
    result.nonfinite = Usable(largest) ? 0 : 1;
    if (result.nonfinite == 0) {
      if (row_.forced_token >= 0) {
        result.token_id = static_cast<uint32_t>(row_.forced_token);
      } else {
        Choose(largest, result);
      }
    }
    if (result.nonfinite == 0 && (row_.logprob || row_.top_logprobs > 0)) {
      AddLogprobs(largest.value, result);
    }
    if (row_.reference_row >= 0) result.kl = KlToReference(largest);
    if (threadIdx.x == 0) params_.results[blockIdx.x] = result;
  }

 private:
  static __device__ __forceinline__ int Threads() { return static_cast<int>(blockDim.x); }

  static __device__ __forceinline__ bool Usable(const Largest& largest) {
    return !largest.nan && fabsf(largest.value) <= kLargestFloat;
  }

  template <class Body>
  __device__ __forceinline__ void Each(const Body& body) const {
    for (int32_t id = static_cast<int32_t>(threadIdx.x); id < size_; id += Threads()) body(id);
  }

  /// The largest logit for which `eligible(id)`, and its lowest id.
  template <class Eligible>
  __device__ Largest FindLargestOf(const float* logits, const Eligible& eligible) {
    Largest best = {MinusInfinity(), kNoId, false};
    Each([&](int32_t id) {
      const float logit = logits[id];
      if (logit != logit) best.nan = true;
      if (eligible(logit, id) && (logit > best.value || best.id == kNoId)) {
        best.value = logit;
        best.id = id;
      }
    });
    LLAMA_STEER_UNROLL
    for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) {
      TakeBetter(best, __shfl_xor_sync(kFullMask, best.value, offset),
                 __shfl_xor_sync(kFullMask, best.id, offset));
    }
    const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
    turn_ ^= 1;
    if (threadIdx.x % kWarpThreads == 0) {
      shared_.maxima[turn_][warp] = best.value;
      shared_.lowest[turn_][warp] = best.id;
    }
    best.nan = __syncthreads_or(best.nan ? 1 : 0) != 0;
    for (int w = 0; w < Threads() / kWarpThreads; ++w) {
      TakeBetter(best, shared_.maxima[turn_][w], shared_.lowest[turn_][w]);
    }
    return best;
  }
  static __device__ __forceinline__ void TakeBetter(Largest& best, float value, int32_t id) {
    const bool found = id != kNoId;
    if (found &&
        (best.id == kNoId || value > best.value || (value == best.value && id < best.id))) {
      best.value = value;
      best.id = id;
    }
  }
  __device__ Largest FindLargest(const float* logits) {
    return FindLargestOf(logits, [](float, int32_t) { return true; });
  }

  __device__ void Choose(Largest largest, DeviceSampleResult& result) {
    const float* logits = logits_;
    if (row_.change_begin < row_.change_end) {
      logits = ChangedLogits();
      largest = FindLargest(logits);
      if (!Usable(largest)) {
        result.nonfinite = 1;
        return;
      }
    }
    result.token_id =
        row_.temperature == 0.0f ? static_cast<uint32_t>(largest.id) : Draw(logits, largest.value);
  }

  /// Logit bias, then repetition, presence and frequency penalties.
  __device__ const float* ChangedLogits() {
    float* changed = params_.changed + static_cast<int64_t>(blockIdx.x) * size_;
    Each([&](int32_t id) { changed[id] = logits_[id]; });
    __syncthreads();
    for (uint32_t i = row_.change_begin + threadIdx.x; i < row_.change_end;
         i += static_cast<uint32_t>(Threads())) {
      const LogitChange change = params_.changes[i];
      float logit = changed[change.token_id] + change.bias;
      if (change.seen != 0 && row_.repetition_penalty != 1.0f) {
        logit = logit > 0.0f ? logit / row_.repetition_penalty : logit * row_.repetition_penalty;
      }
      if (change.generated_count > 0) {
        logit -= row_.presence_penalty;
        logit -= row_.frequency_penalty * static_cast<float>(change.generated_count);
      }
      changed[change.token_id] = logit;
    }
    __syncthreads();
    return changed;
  }

  /// exp((logit − largest) / temperature) in units of 2^-40, 0 below min_p.
  __device__ __forceinline__ Mass MassOf(float logit, float largest, float least) const {
    const float weight = expf((logit - largest) / row_.temperature);
    return weight < least ? 0 : static_cast<Mass>(static_cast<double>(weight) * kMassUnits);
  }

  /// Sum of integers over the block; a barrier before and after.
  __device__ Mass Total(Mass own) {
    __syncthreads();
    shared_.parts[threadIdx.x] = own;
    for (int half = Threads() / 2; half > 0; half /= 2) {
      __syncthreads();
      if (static_cast<int>(threadIdx.x) < half) {
        shared_.parts[threadIdx.x] += shared_.parts[threadIdx.x + static_cast<unsigned>(half)];
      }
    }
    __syncthreads();
    const Mass total = shared_.parts[0];
    __syncthreads();
    return total;
  }

  /// The shortest prefix, by falling logit and rising id, whose measure reaches `target`.
  /// Byte by byte from the top: which digit of the key holds the last of it.
  template <class Measure>
  __device__ Kept Prefix(const float* logits, const Kept& among, Mass target,
                         const Measure& measure) {
    uint32_t prefix = 0;
    Mass above = 0;  // measure of keys above the prefix
    for (int shift = 24; shift >= 0; shift -= 8) {
      for (int d = static_cast<int>(threadIdx.x); d < kDigits; d += Threads()) {
        shared_.digits[d] = 0;
      }
      __syncthreads();
      Each([&](int32_t id) {
        const uint32_t key = KeyOf(logits[id]);
        if (shift < 24 && key >> (shift + 8) != prefix >> (shift + 8)) return;
        if (!among.Has(logits[id], id)) return;
        const Mass own = measure(logits[id]);
        if (own > 0) atomicAdd(&shared_.digits[key >> shift & 0xffu], own);
      });
      __syncthreads();
      uint32_t digit = kDigits;
      Mass before = above;
      // Every thread walks the same 256 numbers.
      while (digit > 0) {
        --digit;
        if (before + shared_.digits[digit] >= target) break;
        before += shared_.digits[digit];
      }
      prefix |= digit << shift;
      above = before;
      __syncthreads();
    }
    return {prefix, LastOfEqual(logits, among, prefix, target - above, measure)};
  }

  /// Of the ids with this key, the one at which their measure, by rising id, reaches `target`.
  template <class Measure>
  __device__ int32_t LastOfEqual(const float* logits, const Kept& among, uint32_t key, Mass target,
                                 const Measure& measure) {
    return IdAt(
        [&](int32_t id) -> Mass {
          return KeyOf(logits[id]) == key && among.Has(logits[id], id) ? measure(logits[id]) : 0;
        },
        target);
  }

  /// The first id at which the sum of `mass`, by rising id, reaches `target` (at least 1); the last
  /// id that has any when the sum never does. Threads take consecutive ranges of ids.
  template <class MassOfId>
  __device__ int32_t IdAt(const MassOfId& mass, Mass target) {
    const int32_t range = (size_ + Threads() - 1) / Threads();
    const int32_t begin = static_cast<int32_t>(threadIdx.x) * range;
    const int32_t end = begin + range < size_ ? begin + range : size_;
    Mass own = 0;
    int32_t last = -1;
    for (int32_t id = begin; id < end; ++id) {
      const Mass m = mass(id);
      own += m;
      if (m > 0) last = id;
    }
    __syncthreads();
    shared_.parts[threadIdx.x] = own;
    if (threadIdx.x == 0) shared_.token = 0;
    __syncthreads();
    Mass before = 0;
    Mass total = 0;
    for (int t = 0; t < Threads(); ++t) {
      if (t == static_cast<int>(threadIdx.x)) before = total;
      total += shared_.parts[t];
    }
    if (total < target) {
      if (last >= 0) atomicMax(&shared_.token, static_cast<uint32_t>(last));
    } else if (before < target && target <= before + own) {
      Mass sum = before;
      int32_t id = begin;
      while ((sum += mass(id)) < target) ++id;
      shared_.token = static_cast<uint32_t>(id);
    }
    __syncthreads();
    const auto found = static_cast<int32_t>(shared_.token);
    __syncthreads();
    return found;
  }

  __device__ uint32_t Draw(const float* logits, float largest) {
    Kept kept;
    if (row_.top_k > 0 && row_.top_k < static_cast<uint32_t>(size_)) {
      kept = Prefix(logits, kept, row_.top_k, [](float) -> Mass { return 1; });
    }
    if (row_.top_p < 1.0f) {
      const auto mass = [&](float logit) { return MassOf(logit, largest, 0.0f); };
      Mass own = 0;
      Each([&](int32_t id) {
        if (kept.Has(logits[id], id)) own += mass(logits[id]);
      });
      const double wanted = static_cast<double>(row_.top_p) * static_cast<double>(Total(own));
      const auto target = static_cast<Mass>(ceil(wanted));
      const Kept nucleus = Prefix(logits, kept, target > 0 ? target : 1, mass);
      kept = nucleus;
    }
    const auto mass = [&](int32_t id) -> Mass {
      return kept.Has(logits[id], id) ? MassOf(logits[id], largest, row_.min_p) : 0;
    };
    Mass own = 0;
    Each([&](int32_t id) { own += mass(id); });
    const double total = static_cast<double>(Total(own));
    const double uniform = PhiloxUniform(row_.seed, row_.completion, row_.position);
    // Masses before the drawn token sum to at most uniform * total.
    return static_cast<uint32_t>(IdAt(mass, static_cast<Mass>(uniform * total) + 1));
  }

  /// KL of the unmodified logits to those of the reference row, in nats, in float64.
  __device__ double KlToReference(const Largest& largest) {
    const float* reference =
        params_.logits + static_cast<int64_t>(row_.reference_row) * params_.vocabulary;
    const Largest other = FindLargest(reference);
    if (!Usable(largest) || !Usable(other)) return static_cast<double>(NAN);
    double sums[3] = {0.0, 0.0, 0.0};  // of p, of q, of p (log p - log q), none normalised
    Each([&](int32_t id) {
      const double a = static_cast<double>(logits_[id]) - static_cast<double>(largest.value);
      const double b = static_cast<double>(reference[id]) - static_cast<double>(other.value);
      const double weight = exp(a);
      sums[0] += weight;
      sums[1] += exp(b);
      if (weight > 0.0) sums[2] += weight * (a - b);  // not 0 · ∞
    });
    sum_(sums);
    const double kl = sums[2] / sums[0] + (log(sums[1]) - log(sums[0]));
    return kl < 0.0 ? 0.0 : kl;  // by rounding
  }

  /// Of the unmodified logits.
  __device__ void AddLogprobs(float largest, DeviceSampleResult& result) {
    double sums[3] = {0.0, 0.0, 0.0};
    Each([&](int32_t id) { sums[0] += static_cast<double>(expf(logits_[id] - largest)); });
    sum_(sums);
    const double log_sum = log(sums[0]);
    const auto logprob = [&](float logit) {
      return static_cast<float>(static_cast<double>(logit) - static_cast<double>(largest) -
                                log_sum);
    };
    result.logprob = logprob(logits_[result.token_id]);
    DeviceTokenLogprob* top = params_.top + static_cast<int64_t>(blockIdx.x) * params_.top_stride;
    float last_logit = 0.0f;
    int32_t last_id = -1;
    for (uint32_t i = 0; i < row_.top_logprobs && i < static_cast<uint32_t>(size_); ++i) {
      const Largest next = FindLargestOf(logits_, [&](float logit, int32_t id) {
        return i == 0 || logit < last_logit || (logit == last_logit && id > last_id);
      });
      last_logit = next.value;
      last_id = next.id;
      if (threadIdx.x == 0) top[i] = {static_cast<uint32_t>(next.id), logprob(next.value)};
    }
  }

  const SampleParams& params_;
  Shared& shared_;
  BlockSum<double, 3> sum_;
  const DeviceSampleRow& row_;
  int32_t size_;
  const float* logits_;
  int turn_ = 0;
};

__global__ void LLAMA_STEER_LAUNCH_BOUNDS(kMaxThreads) SampleKernel(SampleParams params) {
  RowSampler sampler(params, *SharedMemory<Shared>());
  sampler.Run();
}

}  // namespace

cudaError_t Sample(const SampleParams& params, cudaStream_t stream) {
  if (params.row_count == 0) return cudaSuccess;
  LaunchShape shape;
  shape.grid = {static_cast<unsigned>(params.row_count), 1, 1};
  shape.threads = params.vocabulary < kSmallVocabulary ? kSmallThreads : kMaxThreads;
  shape.shared_bytes = sizeof(Shared);
  return Launch<SampleKernel>(shape, stream, params);
}

}  // namespace llama_steer::cuda
