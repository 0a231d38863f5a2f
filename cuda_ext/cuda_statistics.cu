// Statistics: sum and sum of squares, or largest absolute value, of each bucket.
//
// A warp takes a chunk of kStatChunk values. The order of the additions is fixed (see
// cpu_kernels.h), so a thread owns one of the 32 lanes of a chunk: its loads are 4 bytes wide, but
// a warp's row is one contiguous piece in any alignment, and many rows are in flight.
#include "cuda_common.cuh"

namespace {

using knet::kFinalLanes;
using knet::kStatLanes;

static_assert(kStatLanes == kWarp, "a thread is a lane");

template <DType kType>
__global__ void __launch_bounds__(kThreads)
    chunk_kernel(const knet::StatisticsArgs a, int64_t num_chunks) {
  constexpr int kRows = 32;  // a row is loaded while earlier ones are added
  const int64_t index = global_thread() / kWarp;
  if (index >= num_chunks)
    return;  // the whole warp
  const Chunk chunk(index, a.chunks_per_bucket, a.bucket_size, a.num_values);
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
    a.partial[2 * index] = sum, a.partial[2 * index + 1] = square;
}

// Of the kFinalLanes lanes of a bucket, only the first `width` hold chunks; adding the zeros of the
// others would change nothing, so that many threads do, and several buckets share a block.
__global__ void __launch_bounds__(kFinalLanes)
    final_kernel(const double* partial, int64_t chunks, int64_t num_buckets, int width,
                 double* result) {
  __shared__ double sums[kFinalLanes], squares[kFinalLanes];
  const int me = static_cast<int>(threadIdx.x), lane = me % width;
  const int64_t bucket = global_thread() / width;
  double sum = 0.0, square = 0.0;
  if (bucket < num_buckets) {
    const double* row = partial + 2 * bucket * chunks;
#pragma unroll 8  // loads in flight
    for (int64_t i = lane; i < chunks; i += kFinalLanes)
      sum += row[2 * i], square += row[2 * i + 1];
  }
  sums[me] = sum, squares[me] = square;
  for (int half = width / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane < half)
      sums[me] += sums[me + half], squares[me] += squares[me + half];
  }
  if (lane == 0 && bucket < num_buckets)
    result[2 * bucket] = sums[me], result[2 * bucket + 1] = squares[me];
}

int64_t count_buckets(int64_t num_values, int64_t bucket_size) {
  return num_values > bucket_size ? knet::ceil_div(num_values, bucket_size) : 1;
}

// Values are not negative, so they order as their bits do, and NaN is on top. The order of maxima
// is free: four values a thread, in words of up to 16 bytes.
template <DType kType>
__global__ void __launch_bounds__(kThreads)
    max_kernel(const knet::MaxAbsArgs a, int64_t chunks_per_bucket, int64_t num_chunks,
               bool aligned) {
  constexpr int kQuad = 4, kRows = 8;  // rows in flight
  const int64_t index = global_thread() / kWarp;
  if (index >= num_chunks)
    return;  // the whole warp
  const Chunk chunk(index, chunks_per_bucket, a.bucket_size, a.num_values);
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

const char* knet::statistics_cuda(const StatisticsArgs& a, double* result, void* stream) {
  const int64_t buckets = count_buckets(a.num_values, a.bucket_size);
  const int64_t chunks = buckets * a.chunks_per_bucket;
  const char* error = with_dtype(a.dtype, [&](auto type) {
    return launch(chunk_kernel<decltype(type)::value>, chunks * kWarp, kThreads, stream, a, chunks);
  });
  if (error != nullptr)
    return error;
  int width = 1;
  while (width < kFinalLanes && width < a.chunks_per_bucket) width *= 2;
  return launch(final_kernel, buckets * width, width < kThreads ? kThreads : width, stream,
                a.partial, a.chunks_per_bucket, buckets, width, result);
}

const char* knet::max_abs_cuda(const MaxAbsArgs& a, void* stream) {
  const int64_t longest = a.bucket_size < a.num_values ? a.bucket_size : a.num_values;
  const int64_t per_bucket = ceil_div(longest, kStatChunk);
  const int64_t chunks = count_buckets(a.num_values, a.bucket_size) * per_bucket;
  return with_dtype(a.dtype, [&](auto type) {
    return launch(max_kernel<decltype(type)::value>, chunks * kWarp, kThreads, stream, a,
                  per_bucket, chunks, is_aligned(a.values, 16));
  });
}
