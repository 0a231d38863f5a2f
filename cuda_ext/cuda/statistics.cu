// Statistics: of each scale group the sum and sum of squares, a scale made of them, or the largest
// absolute value.
//
// A warp takes a chunk of kStatChunk values. The order of the additions is fixed (see
// cpu/kernels.h), so a thread owns one of the 32 lanes of a chunk: its loads are 4 bytes wide, but
// a warp's row is one contiguous piece in any alignment, and many rows are in flight.
#include "cuda/common.cuh"
#include "cuda/statistics_launches.h"

namespace {

using knet::kFinalLanes;
using knet::kStatLanes;

static_assert(kStatLanes == kWarp, "a thread is a lane");

template <DType kType>
__global__ void __launch_bounds__(kThreads)
    chunk_kernel(const __grid_constant__ knet::LaunchGroup<knet::ChunkItem<double>> launch_group,
                 int64_t scale_group_size) {
  constexpr int kRows = 32;  // a row is loaded while earlier ones are added
  const Place place(launch_group);
  const knet::ChunkItem<double>& a = launch_group.items[place.tensor];
  const int64_t index = place.thread / kWarp;
  const Chunk chunk(index, a.chunks_per_scale, scale_group_size, a.num_values);
  if (chunk.is_after_last)
    return;  // the whole warp
  const auto* x = static_cast<const Storage<kType>*>(a.values) + chunk.first;
  double sum = 0.0, square = 0.0;
  const auto add = [&](const Storage<kType>& stored) {
    const auto value = static_cast<double>(to_float<kType>(stored));
    sum += value;
    square = fma(value, value, square);  // the square is exact in fp64
  };
  int i = static_cast<int>(threadIdx.x % kWarp);
  for (; i + (kRows - 1) * kStatLanes < chunk.count; i += kRows * kStatLanes) {
    Storage<kType> rows[kRows];
#pragma unroll
    for (int row = 0; row < kRows; ++row) rows[row] = x[i + row * kStatLanes];
#pragma unroll
    for (int row = 0; row < kRows; ++row) add(rows[row]);
  }
  for (; i < chunk.count; i += kStatLanes) add(x[i]);
#pragma unroll
  for (int width = kStatLanes / 2; width > 0; width /= 2) {
    sum += __shfl_down_sync(0xFFFFFFFFu, sum, width);
    square += __shfl_down_sync(0xFFFFFFFFu, square, width);
  }
  if (threadIdx.x % kWarp == 0) {
    a.result[2 * index] = sum;
    a.result[2 * index + 1] = square;
  }
}

// What the tensors of a launch of final_kernel share.
struct Shared {
  const double* partial;
  double* moments;
  float* scales;
  int64_t scale_group_size;
  double clip_factor;
  knet::ScaleRule rule;
};
static_assert(sizeof(Shared) <= knet::kSharedBytes);

// Adding the zeros of lanes that hold no chunk would change nothing, so `width` threads do for a
// scale group, and several scale groups share a block.
__global__ void __launch_bounds__(kFinalLanes)
    final_kernel(const __grid_constant__ knet::LaunchGroup<knet::FinalItem> launch_group,
                 const Shared shared) {
  __shared__ double sums[kFinalLanes], squares[kFinalLanes];
  const Place place(launch_group);
  const knet::FinalItem& a = launch_group.items[place.tensor];
  const int64_t num_chunks = knet::chunks_per_scale(a.num_values, shared.scale_group_size);
  const int width = knet::final_width(num_chunks);
  const int me = static_cast<int>(threadIdx.x), lane = me % width;
  const int64_t scale_group = place.thread / width;
  const bool exists = scale_group < knet::count_scale_groups(a.num_values, shared.scale_group_size);
  double sum = 0.0, square = 0.0;
  if (exists) {
    const double* row = shared.partial + 2 * (a.first_partial + scale_group * num_chunks);
#pragma unroll 8  // loads in flight
    for (int64_t i = lane; i < num_chunks; i += kFinalLanes) {
      sum += row[2 * i];
      square += row[2 * i + 1];
    }
  }
  sums[me] = sum;
  squares[me] = square;
  for (int half = width / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane < half) {
      sums[me] += sums[me + half];
      squares[me] += squares[me + half];
    }
  }
  if (lane != 0 || !exists)
    return;
  const int64_t at = a.first_result + scale_group;
  if (shared.moments != nullptr) {
    shared.moments[2 * at] = sums[me];
    shared.moments[2 * at + 1] = squares[me];
  } else {
    const int64_t count = knet::values_in(scale_group, a.num_values, shared.scale_group_size);
    shared.scales[at] =
        knet::scale_of(sums[me], squares[me], count, shared.rule, shared.clip_factor);
  }
}

// Values are not negative, so they order as their bits do, and NaN, on top, becomes infinity. The
// order of maxima is free: four values a thread, in words of up to 16 bytes.
template <DType kType>
__global__ void __launch_bounds__(kThreads)
    max_kernel(const __grid_constant__ knet::LaunchGroup<knet::ChunkItem<float>> launch_group,
               int64_t scale_group_size) {
  constexpr int kQuad = 4, kRows = 8;  // rows in flight
  const Place place(launch_group);
  const knet::ChunkItem<float>& a = launch_group.items[place.tensor];
  const Chunk chunk(place.thread / kWarp, a.chunks_per_scale, scale_group_size, a.num_values);
  if (chunk.is_after_last)
    return;  // the whole warp
  const bool aligned = is_aligned(a.values, 16);
  const auto* x = static_cast<const Storage<kType>*>(a.values) + chunk.first;
  int32_t largest = 0;
  const auto add = [&](const Run<Storage<kType>, kQuad>& run) {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      const uint32_t bits = knet::float_to_bits(to_float<kType>(run.value[i])) & 0x7FFFFFFFu;
      largest = max(largest, static_cast<int32_t>(bits));
    }
  };
  int i = static_cast<int>(threadIdx.x % kWarp) * kQuad;
  for (; aligned && i + (kRows - 1) * kGroup + kQuad <= chunk.count; i += kRows * kGroup) {
    Run<Storage<kType>, kQuad> rows[kRows];
#pragma unroll
    for (int row = 0; row < kRows; ++row)
      rows[row] = load_run<Storage<kType>, kQuad>(x + i + row * kGroup);
#pragma unroll
    for (int row = 0; row < kRows; ++row) add(rows[row]);
  }
  for (; i < chunk.count; i += kGroup) add(load_ragged<Storage<kType>, kQuad>(x, i, chunk.count));
#pragma unroll
  for (int width = kWarp / 2; width > 0; width /= 2)
    largest = max(largest, __shfl_down_sync(0xFFFFFFFFu, largest, width));
  largest = min(largest, static_cast<int32_t>(knet::kInfinityBits));
  if (threadIdx.x % kWarp == 0)
    atomicMax(reinterpret_cast<int32_t*>(a.result) + chunk.scale_group, largest);
}

}  // namespace

const char* knet::statistics_cuda(const StatisticsArgs* tensors, int64_t count, void* stream) {
  const char* error = chunk_launches(
      tensors, count,
      [&](auto type, const LaunchGroup<ChunkItem<double>>& launch_group, int64_t blocks) {
        return launch(chunk_kernel<decltype(type)::value>, blocks, kThreads, stream, launch_group,
                      tensors->scale_group_size);
      });
  if (error != nullptr)
    return error;
  const int threads = final_threads(tensors, count);
  const Shared shared{tensors->partial,          tensors->moments,     tensors->scales,
                      tensors->scale_group_size, tensors->clip_factor, tensors->rule};
  return final_launches(
      tensors, count, threads, [&](const LaunchGroup<FinalItem>& launch_group, int64_t blocks) {
        return launch(final_kernel, blocks, threads, stream, launch_group, shared);
      });
}

const char* knet::max_abs_cuda(const MaxAbsArgs* tensors, int64_t count, void* stream) {
  return chunk_launches(
      tensors, count,
      [&](auto type, const LaunchGroup<ChunkItem<float>>& launch_group, int64_t blocks) {
        return launch(max_kernel<decltype(type)::value>, blocks, kThreads, stream, launch_group,
                      tensors->scale_group_size);
      });
}
