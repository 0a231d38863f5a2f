// Takes the place of CUDA's header where there is no GPU: runs kernels as C++, in one thread.
//
// The threads of a block are coroutines, which run in a random order and change places where CUDA's
// threads meet: at barriers and shuffles. Blocks run one after another. What is found this way:
// wrong indices, misaligned accesses (with -fsanitize=alignment), a result that hangs on the order
// of threads, threads that miss a barrier. What is not: races within a warp, and speed.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#define __device__
#define __forceinline__ inline
#define __global__
#define __grid_constant__
#define __host__
#define __launch_bounds__(count)
#define __shared__ static

using std::max;
using std::min;

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return ""; }

struct Index {
  unsigned x, y, z;
};
inline Index threadIdx, blockIdx, blockDim;

namespace emulator {

constexpr int kWarpLanes = 32;
constexpr int kMaxThreads = 1024;
constexpr size_t kStackBytes = 64 << 10;

// A place where a number of threads wait for each other, any number of times.
struct Meeting {
  int expected = 0, arrived = 0;
  unsigned round = 0;
};

struct Thread {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStackBytes);
  bool is_done = false;
};

struct Block {
  std::vector<Thread> threads{kMaxThreads};
  ucontext_t scheduler;
  std::function<void()> body;
  Meeting barrier, warps[kMaxThreads / kWarpLanes];
  // What lanes offer in a shuffle; of two rounds, since the last reader may come a round late.
  uint64_t offered[2][kMaxThreads];
  bool has_moved = false;  // since every thread had its turn
  std::mt19937 random{1};
};
inline Block block;

inline void leave() { swapcontext(&block.threads[threadIdx.x].context, &block.scheduler); }

inline void meet(Meeting& meeting) {
  block.has_moved = true;
  const unsigned round = meeting.round;
  if (++meeting.arrived == meeting.expected) {
    meeting.arrived = 0;
    ++meeting.round;
  }
  while (meeting.round == round) leave();
  block.has_moved = true;
}

inline void run_thread() {
  block.body();
  block.threads[threadIdx.x].is_done = true;
  block.has_moved = true;
  leave();
}

// Runs the threads of one block to their ends.
inline void run_block(int num_threads) {
  block.barrier = Meeting{num_threads};
  for (Meeting& warp : block.warps) warp = Meeting{kWarpLanes};
  std::vector<unsigned> order(static_cast<size_t>(num_threads));
  for (unsigned i = 0; i < order.size(); ++i) {
    Thread& thread = block.threads[i];
    thread.is_done = false;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = thread.stack.size();
    makecontext(&thread.context, run_thread, 0);
    order[i] = i;
  }
  std::shuffle(order.begin(), order.end(), block.random);
  while (!order.empty()) {
    block.has_moved = false;
    for (const unsigned i : order) {
      threadIdx = {i, 0, 0};
      swapcontext(&block.scheduler, &block.threads[i].context);
    }
    order.erase(std::remove_if(order.begin(), order.end(),
                               [](unsigned i) { return block.threads[i].is_done; }),
                order.end());
    if (!block.has_moved) {
      std::fprintf(stderr, "emulator: %zu threads of block %u wait for others that have ended\n",
                   order.size(), blockIdx.x);
      std::abort();
    }
  }
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), uint32_t num_blocks, int num_threads,
            const Arguments&... arguments) {
  blockDim = {static_cast<unsigned>(num_threads), 1, 1};
  block.body = [&] { kernel(arguments...); };
  for (uint32_t i = 0; i < num_blocks; ++i) {
    blockIdx = {i, 0, 0};
    run_block(num_threads);
  }
}

}  // namespace emulator

inline void __syncthreads() { emulator::meet(emulator::block.barrier); }

template <class T>
T __shfl_down_sync(unsigned, T value, int delta) {
  using namespace emulator;
  const unsigned me = threadIdx.x;
  Meeting& warp = block.warps[me / kWarpLanes];
  uint64_t* offered = block.offered[warp.round % 2];
  std::memcpy(&offered[me], &value, sizeof value);
  meet(warp);
  const unsigned from = me % kWarpLanes + static_cast<unsigned>(delta);
  std::memcpy(&value, &offered[from < kWarpLanes ? me + static_cast<unsigned>(delta) : me],
              sizeof value);
  return value;
}

inline int32_t atomicMax(int32_t* at, int32_t value) {
  const int32_t before = *at;
  *at = max(before, value);
  return before;
}
inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32);
}
inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>(static_cast<Wide>(a) * b >> 64);
}

// fp16 by arithmetic, so that it checks the shifts of core/floats.h. NaN becomes the GPU's own.
struct __half {
  uint16_t bits;
};
inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline uint16_t __half_as_ushort(__half half) { return half.bits; }
inline float __half2float(__half half) {
  const int exponent = half.bits >> 10 & 31, fraction = half.bits & 1023;
  float value = std::ldexp(static_cast<float>(fraction), -24);
  if (exponent > 0)
    value = std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  if (exponent == 31)
    value = fraction == 0 ? INFINITY : NAN;
  return half.bits >> 15 != 0 ? -value : value;
}
inline __half __float2half_rn(float value) {
  const int sign = std::signbit(value) ? 0x8000 : 0;
  const double size = std::fabs(static_cast<double>(value));
  if (value != value)
    return {0x7FFF};
  if (size >= 65520.0)  // rounds to 2^16
    return {static_cast<uint16_t>(sign | 0x7C00)};
  const int exponent = size < 0x1p-14 ? -14 : std::ilogb(size);
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  return {static_cast<uint16_t>(sign | ((exponent + 14) << 10) + steps)};
}
inline long long __double_as_longlong(double value) {
  long long bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline double __longlong_as_double(long long bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
