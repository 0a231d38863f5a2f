// Statistics: sum and sum of squares, or largest absolute value, of each bucket.
//
// A warp takes a chunk of kStatChunk values. The order of the additions is fixed (see
// cpu/kernels.h), so a thread owns one of the 32 lanes of a chunk: its loads are 4 bytes wide, but
// a warp's row is one contiguous piece in any alignment, and many rows are in flight.
#include "cuda/common.cuh"

namespace {

using knet::kFinalLanes;
using knet::kStatLanes;

static_assert(kStatLanes == kWarp, "a thread is a lane");

template <DType kType>
__global__ void __launch_bounds__(kThreads)
    chunk_kernel(const __grid_constant__ knet::Batch<knet::ChunkItem<double>> batch,
                 int64_t scale_group_size) {
  constexpr int kRows = 32;  // a row is loaded while earlier ones are added
  const Place place(batch);
  const knet::ChunkItem<double>& a = batch.items[place.tensor];
  const int64_t index = place.thread / kWarp;
  const Chunk chunk(index, a.chunks_per_bucket, scale_group_size, a.num_values);
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
  if (threadIdx.x % kWarp == 0)
    a.result[2 * index] = sum, a.result[2 * index + 1] = square;
}

// Adding the zeros of lanes that hold no chunk would change nothing, so `width` threads do for a
// bucket, and several buckets share a block.
__global__ void __launch_bounds__(kFinalLanes)
    final_kernel(const __grid_constant__ knet::Batch<knet::FinalItem> batch, const double* partial,
                 double* result) {
  __shared__ double sums[kFinalLanes], squares[kFinalLanes];
  const Place place(batch);
  const knet::FinalItem& a = batch.items[place.tensor];
  const int width = knet::final_width(a.chunks_per_bucket);
  const int me = static_cast<int>(threadIdx.x), lane = me % width;
  const int64_t bucket = place.thread / width;
  double sum = 0.0, square = 0.0;
  if (bucket < a.num_scale_groups) {
    const double* row = partial + 2 * (a.first_partial + bucket * a.chunks_per_bucket);
#pragma unroll 8  // loads in flight
    for (int64_t i = lane; i < a.chunks_per_bucket; i += kFinalLanes)
      sum += row[2 * i], square += row[2 * i + 1];
  }
  sums[me] = sum, squares[me] = square;
  for (int half = width / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane < half)
      sums[me] += sums[me + half], squares[me] += squares[me + half];
  }
  if (lane == 0 && bucket < a.num_scale_groups) {
    double* out = result + 2 * (a.first_result + bucket);
    out[0] = sums[me], out[1] = squares[me];
  }
}

// Values are not negative, so they order as their bits do, and NaN is on top. The order of maxima
// is free: four values a thread, in words of up to 16 bytes.
template <DType kType>
__global__ void __launch_bounds__(kThreads)
    max_kernel(const __grid_constant__ knet::Batch<knet::ChunkItem<float>> batch,
               int64_t scale_group_size) {
  constexpr int kQuad = 4, kRows = 8;  // rows in flight
  const Place place(batch);
  const knet::ChunkItem<float>& a = batch.items[place.tensor];
  const Chunk chunk(place.thread / kWarp, a.chunks_per_bucket, scale_group_size, a.num_values);
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
  if (threadIdx.x % kWarp == 0)
    atomicMax(reinterpret_cast<int32_t*>(a.result) + chunk.bucket, largest);
}

}  // namespace

const char* knet::statistics_cuda(const StatisticsArgs* tensors, int64_t count, void* stream) {
  const char* error = chunk_batches(
      tensors, count, [&](auto type, const Batch<ChunkItem<double>>& batch, int64_t blocks) {
        return launch(chunk_kernel<decltype(type)::value>, blocks, kThreads, stream, batch,
                      tensors->scale_group_size);
      });
  if (error != nullptr)
    return error;
  const int threads = final_threads(tensors, count);
  return final_batches(tensors, count, threads, [&](const Batch<FinalItem>& batch, int64_t blocks) {
    return launch(final_kernel, blocks, threads, stream, batch, tensors->partial, tensors->result);
  });
}

const char* knet::max_abs_cuda(const MaxAbsArgs* tensors, int64_t count, void* stream) {
  return max_batches(tensors, count,
                     [&](auto type, const Batch<ChunkItem<float>>& batch, int64_t blocks) {
                       return launch(max_kernel<decltype(type)::value>, blocks, kThreads, stream,
                                     batch, tensors->scale_group_size);
                     });
}
