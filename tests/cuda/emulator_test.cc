// The emulator keeps the promises of the execution model, and finds what breaks them: these tests
// launch kernels of their own, right ones and wrong ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "device/ptx.h"
#include "device/reduce.h"
#include "device_memory.h"
#include "emulator/arena.h"

namespace llama_steer::cuda {
namespace {

constexpr const char* kOrders[] = {"forwards", "backwards", "random:1", "random:2", "random:3"};

class EmulatorTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(stream_.Create().ok()); }
  void TearDown() override { unsetenv("LLAMA_STEER_EMULATOR_ORDER"); }

  /// Output of a kernel of one block.
  template <auto kKernel, class Params>
  std::vector<float> Run(Params params, unsigned threads, size_t outputs, const char* order,
                         size_t shared_bytes = 4096) {
    setenv("LLAMA_STEER_EMULATOR_ORDER", order, 1);
    DeviceBuffer out;
    EXPECT_TRUE(out.Grow(outputs * sizeof(float)).ok());
    params.out = out.as<float>();
    LaunchShape shape;
    shape.threads = threads;
    shape.shared_bytes = shared_bytes;
    EXPECT_EQ(Launch<kKernel>(shape, stream_, params), cudaSuccess);
    std::vector<float> host(outputs);
    cudaMemcpyAsync(host.data(), out.as<void>(), outputs * sizeof(float), cudaMemcpyDeviceToHost,
                    stream_);
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    return host;
  }

  Stream stream_;
};

struct OutParams {
  float* out = nullptr;
};

// Each thread hands its number to its neighbour through shared memory.
template <bool kBarrier>
__global__ void NeighbourKernel(OutParams params) {
  auto* shared = SharedMemory<float>();
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  if constexpr (kBarrier) __syncthreads();
  params.out[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}

TEST_F(EmulatorTest, ABarrierMakesSharedMemoryVisibleInEveryOrder) {
  for (const char* order : kOrders) {
    const auto out = Run<NeighbourKernel<true>>(OutParams{}, 96, 96, order);
    for (size_t i = 0; i < 96; ++i) EXPECT_EQ(out[i], static_cast<float>((i + 1) % 96)) << order;
  }
}

TEST_F(EmulatorTest, AMissingBarrierShowsAsPoisonOrAsADifferenceBetweenOrders) {
  const auto forwards = Run<NeighbourKernel<false>>(OutParams{}, 96, 96, "forwards");
  EXPECT_TRUE(std::isnan(forwards[0]));  // shared memory that nobody wrote yet
  const auto backwards = Run<NeighbourKernel<false>>(OutParams{}, 96, 96, "backwards");
  EXPECT_FALSE(std::isnan(backwards[0]));
  EXPECT_TRUE(std::isnan(backwards[95]));
}

__global__ void DivergentKernel(OutParams params) {
  if (threadIdx.x < 32) __syncthreads();
  if (threadIdx.x >= 32) __syncwarp();
  params.out[threadIdx.x] = 1.0f;
}
__global__ void HalfWarpKernel(OutParams params) {
  if (threadIdx.x < 16) {
    params.out[threadIdx.x] = __shfl_xor_sync(kFullMask, 1.0f, 1);
  }
}

TEST_F(EmulatorTest, ABlockThatCannotGoOnIsALaunchFailure) {
  // In a process of its own: device errors are sticky, as on a device.
  const auto fails = [this](auto launch) {
    if (launch() == cudaSuccess && cudaStreamSynchronize(stream_) == cudaErrorLaunchFailure) {
      std::fprintf(stderr, "as it should\n");
      std::exit(7);
    }
    std::exit(0);
  };
  DeviceBuffer out;
  ASSERT_TRUE(out.Grow(256).ok());
  LaunchShape shape;
  shape.threads = 64;
  const OutParams params{out.as<float>()};
  EXPECT_EXIT(fails([&] { return Launch<DivergentKernel>(shape, stream_, params); }),
              testing::ExitedWithCode(7), "cannot go on: thread 0 at __syncthreads");
  shape.threads = 32;
  EXPECT_EXIT(fails([&] { return Launch<HalfWarpKernel>(shape, stream_, params); }),
              testing::ExitedWithCode(7), "at a warp collective");
}

__global__ void CollectivesKernel(OutParams params) {
  const auto lane = static_cast<int>(threadIdx.x);
  const float sum = WarpSum(static_cast<float>(lane));
  const float largest = WarpMax(static_cast<float>((lane * 7) % 32));
  const unsigned odd = __ballot_sync(kFullMask, lane % 2);
  params.out[lane] =
      sum + (largest == 31.0f ? 1000.0f : 0.0f) + (odd == 0xaaaaaaaau ? 2000.0f : 0.0f);
}

TEST_F(EmulatorTest, ShufflesAndVotesMeetInEveryOrder) {
  for (const char* order : kOrders) {
    for (const float value : Run<CollectivesKernel>(OutParams{}, 32, 32, order)) {
      EXPECT_EQ(value, 3496.0f) << order;
    }
  }
}

// Warps 0 and 1 meet at barrier 1, warps 2 and 3 at barrier 2.
__global__ void NamedBarrierKernel(OutParams params) {
  auto* shared = SharedMemory<float>();
  const unsigned pair = threadIdx.x / 64;
  shared[threadIdx.x] = static_cast<float>(threadIdx.x);
  emulator::SyncNamedBarrier(static_cast<int>(1 + pair), 64);
  params.out[threadIdx.x] = shared[pair * 64 + (threadIdx.x + 32) % 64];
}

TEST_F(EmulatorTest, NamedBarriersHoldTheirOwnThreadsOnly) {
  for (const char* order : kOrders) {
    const auto out = Run<NamedBarrierKernel>(OutParams{}, 128, 128, order);
    for (size_t i = 0; i < 128; ++i) {
      EXPECT_EQ(out[i], static_cast<float>(i / 64 * 64 + (i + 32) % 64)) << order;
    }
  }
}

struct CopyParams {
  float* out = nullptr;
  const float* in = nullptr;
  bool waits = false;
};
__global__ void AsyncCopyKernel(CopyParams params) {
  auto* shared = SharedMemory<float>();
  const unsigned i = threadIdx.x * 4;
  CopyAsync16(shared + i, params.in + i, threadIdx.x != 3);
  CopyAsyncCommit();
  if (params.waits) CopyAsyncWait<0>();
  __syncthreads();
  for (unsigned j = 0; j < 4; ++j) params.out[i + j] = shared[i + j];
}

TEST_F(EmulatorTest, AsynchronousCopiesHaveArrivedWhenTheyWereWaitedForAndMayBefore) {
  std::vector<float> host(128);
  std::iota(host.begin(), host.end(), 1.0f);
  DeviceBuffer in;
  ASSERT_TRUE(in.Grow(host.size() * sizeof(float)).ok());
  cudaMemcpyAsync(in.as<void>(), host.data(), host.size() * sizeof(float), cudaMemcpyHostToDevice,
                  stream_);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  const auto run = [&](bool waits, const char* order) {
    return Run<AsyncCopyKernel>(CopyParams{nullptr, in.as<float>(), waits}, 32, 128, order);
  };
  for (size_t i = 0; i < 128; ++i) host[i] = i / 4 == 3 ? 0.0f : host[i];
  for (const char* order : kOrders) EXPECT_EQ(run(true, order), host) << order;
  for (const float value : run(false, "forwards")) EXPECT_TRUE(std::isnan(value));
  EXPECT_EQ(run(false, "backwards"), host);
  // Some of 32 copies are early and some late.
  const auto mixed = run(false, "random:1");
  const auto late = std::ranges::count_if(mixed, [](float value) { return std::isnan(value); });
  EXPECT_TRUE(late > 0 && late < 128) << late;
}

struct MmaParams {
  float* out = nullptr;
  float a[16][16];
  float b[16][8];
};
__global__ void MmaKernel(MmaParams params) {
  const int lane = static_cast<int>(threadIdx.x);
  const int g = lane / 4;
  const int c = lane % 4 * 2;
  const auto pair_a = [&](int row, int k) {
    return PackBf16(params.a[row][k], params.a[row][k + 1]);
  };
  const auto pair_b = [&](int k) { return PackBf16(params.b[k][g], params.b[k + 1][g]); };
  const FragmentA a = {{pair_a(g, c), pair_a(g + 8, c), pair_a(g, c + 8), pair_a(g + 8, c + 8)}};
  FragmentD d = {{0.5f, 0.5f, 0.5f, 0.5f}};
  MmaBf16(d, a, {{pair_b(c), pair_b(c + 8)}});
  for (int i = 0; i < 4; ++i) params.out[(g + i / 2 * 8) * 8 + c + i % 2] = d.value[i];
}

TEST_F(EmulatorTest, MmaMultipliesMatrices) {
  MmaParams params;
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) params.a[i][k] = static_cast<float>((i * 5 + k * 3) % 17 - 8);
    for (int n = 0; n < 8; ++n) params.b[i][n] = static_cast<float>((i * 7 + n * 11) % 13 - 6);
  }
  const auto out = Run<MmaKernel>(params, 32, 128, "random");
  for (int i = 0; i < 16; ++i) {
    for (int n = 0; n < 8; ++n) {
      float sum = 0.5f;
      for (int k = 0; k < 16; ++k) sum += params.a[i][k] * params.b[k][n];
      EXPECT_EQ(out[static_cast<size_t>(i * 8 + n)], sum);
    }
  }
}

__global__ void TransposeKernel(OutParams params) {
  auto* shared = SharedMemory<__nv_bfloat16>();
  const auto lane = static_cast<int>(threadIdx.x);
  for (int j = 0; j < 8; ++j)
    shared[lane * 8 + j] = __float2bfloat16_rn(static_cast<float>(lane * 8 + j));
  __syncwarp();
  Bf16Pair out[4];
  LoadMatrix4Transposed(out, shared + lane * 8);
  for (int m = 0; m < 4; ++m) {
    // Element [2c][g] of matrix m, in the lower half.
    params.out[m * 32 + lane] = __uint_as_float(out[m] << 16);
  }
}

TEST_F(EmulatorTest, MatricesAreLoadedTransposed) {
  const auto out = Run<TransposeKernel>(OutParams{}, 32, 128, "backwards");
  for (int m = 0; m < 4; ++m) {
    for (int lane = 0; lane < 32; ++lane) {
      EXPECT_EQ(out[static_cast<size_t>(m * 32 + lane)],
                static_cast<float>((m * 8 + lane % 4 * 2) * 8 + lane / 4));
    }
  }
}

TEST_F(EmulatorTest, StreamsRunInOrderAndWaitForEachOther) {
  Stream other;
  Event event;
  ASSERT_TRUE(other.Create().ok());
  ASSERT_TRUE(event.Create().ok());
  DeviceBuffer memory;
  ASSERT_TRUE(memory.Grow(16).ok());
  float host[2] = {1.0f, 2.0f};
  float back = 0.0f;
  cudaMemcpyAsync(memory.as<void>(), &host[0], 4, cudaMemcpyHostToDevice, stream_);
  cudaMemcpyAsync(memory.as<void>(), &host[1], 4, cudaMemcpyHostToDevice, stream_);
  cudaEventRecord(event, stream_);
  cudaStreamWaitEvent(other, event, 0);
  cudaMemcpyAsync(&back, memory.as<void>(), 4, cudaMemcpyDeviceToHost, other);
  EXPECT_EQ(back, 0.0f);  // nothing runs before somebody waits
  ASSERT_EQ(cudaStreamSynchronize(other), cudaSuccess);
  EXPECT_EQ(back, 2.0f);
}

TEST_F(EmulatorTest, AGraphRepeatsWhatWasCaptured) {
  DeviceBuffer memory;
  ASSERT_TRUE(memory.Grow(16).ok());
  float host = 1.0f;
  float back = 0.0f;
  cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal);
  cudaMemcpyAsync(memory.as<void>(), &host, 4, cudaMemcpyHostToDevice, stream_);
  cudaMemcpyAsync(&back, memory.as<void>(), 4, cudaMemcpyDeviceToHost, stream_);
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  cudaStreamSynchronize(stream_);
  EXPECT_EQ(back, 0.0f);  // captured, not run
  cudaGraphExec_t exec = nullptr;
  cudaGraphInstantiate(&exec, graph, 0);
  for (const float value : {3.0f, 4.0f}) {
    host = value;
    cudaGraphLaunch(exec, stream_);
    cudaStreamSynchronize(stream_);
    EXPECT_EQ(back, value);
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
}

TEST_F(EmulatorTest, EventsTellTheTimeBetweenThemOnceTheyHavePassed) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  ASSERT_EQ(cudaEventCreateWithFlags(&begin, cudaEventDefault), cudaSuccess);
  ASSERT_EQ(cudaEventCreateWithFlags(&end, cudaEventDefault), cudaSuccess);
  cudaEventRecord(begin, stream_);
  DeviceBuffer memory;
  ASSERT_TRUE(memory.Grow(1 << 20).ok());
  cudaMemsetAsync(memory.as<void>(), 1, 1 << 20, stream_);
  cudaEventRecord(end, stream_);
  float milliseconds = -1.0f;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaErrorNotReady);
  ASSERT_EQ(cudaEventSynchronize(end), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaSuccess);
  EXPECT_GT(milliseconds, 0.0f);
  Event untimed;
  ASSERT_TRUE(untimed.Create().ok());
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, untimed), cudaErrorInvalidResourceHandle);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
}

struct ChainParams {
  float* values = nullptr;  // one a link
  int link = 0;
  int reads = 0;  // the link whose value is read
  bool waits = false;
};
// Writes what it read, and one more; the first link reads nothing.
__global__ void LinkKernel(ChainParams params) {
  if (params.waits) WaitForPrior();
  const float read = params.link == 0 ? 0.0f : params.values[params.reads];
  WaitForPrior();
  if (threadIdx.x == 0) params.values[params.link] = read + 1.0f;
}

class OverlapTest : public EmulatorTest {
 protected:
  void TearDown() override {
    OverlapSwitch() = true;
    EmulatorTest::TearDown();
  }

  /// The value of the last of three links, of which the last one alone may be in a hurry.
  float Last(const char* order, int reads, bool waits, bool overlaps, bool as_graph) {
    setenv("LLAMA_STEER_EMULATOR_ORDER", order, 1);
    DeviceBuffer values;
    EXPECT_TRUE(values.Grow(3 * sizeof(float)).ok());
    EXPECT_EQ(cudaMemsetAsync(values.as<void>(), 0, 3 * sizeof(float), stream_), cudaSuccess);
    if (as_graph) cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal);
    for (int link = 0; link < 3; ++link) {
      LaunchShape shape;
      shape.threads = 32;
      shape.overlaps = overlaps && link > 0;
      const ChainParams params{values.as<float>(), link, link == 2 ? reads : 0, link < 2 || waits};
      EXPECT_EQ(Launch<LinkKernel>(shape, stream_, params), cudaSuccess);
    }
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    if (as_graph) {
      EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
      cudaGraphInstantiate(&exec, graph, 0);
      cudaGraphLaunch(exec, stream_);
    }
    float last = -1.0f;
    cudaMemcpyAsync(&last, values.as<float>() + 2, sizeof(float), cudaMemcpyDeviceToHost, stream_);
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    return last;
  }
};

TEST_F(OverlapTest, AKernelThatWaitsSeesWhatThoseBeforeItWrote) {
  for (const char* order : kOrders) {
    for (const bool as_graph : {false, true}) {
      EXPECT_EQ(Last(order, 1, true, true, as_graph), 3.0f) << order;
      EXPECT_EQ(Last(order, 0, true, true, as_graph), 2.0f) << order;
    }
  }
}

TEST_F(OverlapTest, AReadBeforeTheWaitIsFoundOut) {
  for (const bool as_graph : {false, true}) {
    // Of the kernel before, and of the one before that, which may still run too.
    for (const int reads : {1, 0}) {
      EXPECT_EQ(Last("forwards", reads, false, true, as_graph), 1.0f) << reads;
    }
    EXPECT_EQ(Last("backwards", 1, false, true, as_graph), 3.0f);
  }
  std::vector<float> seen;
  for (int i = 0; i < 16; ++i) seen.push_back(Last("random:1", 1, false, true, false));
  EXPECT_TRUE(std::ranges::count(seen, 1.0f) > 0 && std::ranges::count(seen, 3.0f) > 0);
}

TEST_F(OverlapTest, WithoutOverlapThereIsNothingToWaitFor) {
  EXPECT_EQ(Last("forwards", 1, false, false, false), 3.0f);
  OverlapSwitch() = false;
  EXPECT_EQ(Last("forwards", 1, false, true, false), 3.0f);
}

// The first threads wait for the kernel before, the others for them.
__global__ void BarrierBehindTheWaitKernel(OutParams params) {
  auto* shared = SharedMemory<float>();
  if (threadIdx.x < 32) WaitForPrior();
  shared[threadIdx.x] = params.out[threadIdx.x];
  __syncthreads();
  params.out[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x] + 1.0f;
}

TEST_F(OverlapTest, ThreadsThatWaitHoldTheirBlockAtItsBarrier) {
  DeviceBuffer out;
  ASSERT_TRUE(out.Grow(64 * sizeof(float)).ok());
  ASSERT_EQ(cudaMemsetAsync(out.as<void>(), 0, 64 * sizeof(float), stream_), cudaSuccess);
  LaunchShape shape;
  shape.threads = 64;
  shape.shared_bytes = 64 * sizeof(float);
  for (int i = 0; i < 2; ++i) {
    shape.overlaps = i > 0;
    ASSERT_EQ(Launch<BarrierBehindTheWaitKernel>(shape, stream_, OutParams{out.as<float>()}),
              cudaSuccess);
  }
  std::vector<float> host(64);
  cudaMemcpyAsync(host.data(), out.as<void>(), 64 * sizeof(float), cudaMemcpyDeviceToHost, stream_);
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  // The second warp of the second kernel read too early: its neighbours in front got one addition.
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(host[i], i < 31 || i == 63 ? 2.0f : 1.0f) << i;
}

TEST_F(EmulatorTest, DeviceMemoryIsOutOfReachOfTheHost) {
  DeviceBuffer memory;
  ASSERT_TRUE(memory.Grow(16).ok());
  EXPECT_DEATH(*memory.as<volatile float>() = 1.0f, "");
}

TEST_F(EmulatorTest, MemoryThatIsNotThereIsAnError) {
  DeviceBuffer memory;
  EXPECT_EQ(memory.Grow(size_t{1} << 40).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  LaunchShape shape;
  shape.threads = 2048;
  EXPECT_EQ(Launch<CollectivesKernel>(shape, stream_, OutParams{}), cudaErrorInvalidConfiguration);
}

}  // namespace
}  // namespace llama_steer::cuda
