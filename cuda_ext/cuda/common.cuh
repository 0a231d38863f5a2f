// What the CUDA kernels share: 16-byte loads and stores, the scale group of a group, the checked
// launch.
//
// The arithmetic is that of core/codec.h, compiled without contraction (--fmad=false), fast
// division or flushed denormals, so that the results are the CPU's bit for bit.
#pragma once

#include <cuda_runtime.h>
#if !defined(KNET_EMULATOR)
#include <cuda_fp16.h>
#endif

#include <type_traits>

#include "cuda/launch_groups.h"

#define KNET_DEVICE __device__ __forceinline__

namespace {

using knet::DType;
using knet::kGroup;
using knet::kThreads;
using knet::kWarp;
using knet::WireFormat;

template <DType kType>
using Storage = std::conditional_t<kType == DType::kFloat32, float,
                                   std::conditional_t<kType == DType::kFloat64, double, uint16_t>>;

// Adjacent values that one thread moves in words of up to 16 bytes.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Run {
  T value[kCount];
};

template <class T, int kCount>
KNET_DEVICE Run<T, kCount> load_run(const T* from) {
  return *reinterpret_cast<const Run<T, kCount>*>(from);
}

// Values [first, first + kCount) of [end], zero past its end, in any alignment.
template <class T, int kCount>
KNET_DEVICE Run<T, kCount> load_ragged(const T* from, int64_t first, int64_t end) {
  Run<T, kCount> run;
#pragma unroll
  for (int i = 0; i < kCount; ++i) run.value[i] = first + i < end ? from[first + i] : T(0);
  return run;
}

// Stores to values [first, first + kCount) of [end].
template <class T, int kCount>
KNET_DEVICE void store_run(const Run<T, kCount>& run, T* to, int64_t first, int64_t end,
                           bool aligned) {
  if (aligned && first + kCount <= end) {
    *reinterpret_cast<Run<T, kCount>*>(to + first) = run;
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    if (first + i < end)
      to[first + i] = run.value[i];
}

// A GPU replaces every NaN that it converts by its own; a CPU keeps the sign, which codes take, and
// the high bits. Else its instructions for fp16 give the bits of core/floats.h.
template <DType kType>
KNET_DEVICE float to_float(const Storage<kType>& value) {
  if constexpr (kType == DType::kFloat64) {
    if (value != value) {
      const auto bits = static_cast<uint64_t>(__double_as_longlong(value));
      const auto sign = static_cast<uint32_t>(bits >> 32) & 0x80000000u;
      return knet::bits_to_float(sign | 0x7FC00000u |
                                 (static_cast<uint32_t>(bits >> 29) & 0x3FFFFFu));
    }
  }
  if constexpr (kType == DType::kFloat16) {
    const uint32_t magnitude =
        knet::float_to_bits(__half2float(__ushort_as_half(value))) & 0x7FFFFFFFu;
    return knet::bits_to_float(magnitude | static_cast<uint32_t>(value & 0x8000u) << 16);
  }
  return knet::load_value(&value, kType, 0);
}

template <DType kType>
KNET_DEVICE Storage<kType> from_float(float value) {
  if constexpr (kType == DType::kFloat64) {
    if (value != value)
      return __longlong_as_double(0x7FF8000000000000ll);
  }
  if constexpr (kType == DType::kFloat16) {
    const auto sign = static_cast<uint16_t>(knet::float_to_bits(value) >> 16 & 0x8000u);
    return value != value ? static_cast<uint16_t>(sign | 0x7E00u)
                          : __half_as_ushort(__float2half_rn(value));
  }
  Storage<kType> stored;
  knet::store_value(&stored, kType, 0, value);
  return stored;
}

// The scale group of consecutive groups, for one division; 32 bits count the groups of 2^39 values.
struct ScaleCursor {
  KNET_DEVICE ScaleCursor(int64_t group, uint32_t groups_per_scale)
      : scale_group(static_cast<uint32_t>(group) / groups_per_scale),
        size(groups_per_scale),
        left(groups_per_scale - static_cast<uint32_t>(group) % groups_per_scale) {}
  KNET_DEVICE bool next_is_new() {
    if (--left > 0)
      return false;
    left = size;
    ++scale_group;
    return true;
  }
  uint32_t scale_group, size, left;
};

// Only a size that is all of one scale group need not be a multiple of kGroup.
inline uint32_t groups_per_scale(int64_t scale_group_size) {
  return static_cast<uint32_t>(knet::ceil_div(
      scale_group_size < knet::kWholeTensor ? scale_group_size : knet::kWholeTensor, kGroup));
}

// Chunks of kStatChunk values that partition each scale group; empty ones after the last value.
struct Chunk {
  KNET_DEVICE Chunk(int64_t chunk, int64_t chunks_per_scale, int64_t scale_group_size,
                    int64_t num_values) {
    scale_group = static_cast<uint32_t>(chunk) / static_cast<uint32_t>(chunks_per_scale);
    const int64_t offset = (chunk - scale_group * chunks_per_scale) * knet::kStatChunk;
    first = scale_group * scale_group_size + offset;
    is_after_last = scale_group > 0 && first - offset >= num_values;
    const int64_t scale_group_left = scale_group_size - offset, values_left = num_values - first;
    const int64_t left = scale_group_left < values_left ? scale_group_left : values_left;
    count = static_cast<int>(left < 0 ? 0 : left < knet::kStatChunk ? left : knet::kStatChunk);
  }
  int64_t scale_group, first;
  int count;
  bool is_after_last;  // of the tensor, in the last block of threads
};

KNET_DEVICE int64_t global_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// The tensor of a block of threads, and the number of a thread among that tensor's.
struct Place {
  template <class Item>
  KNET_DEVICE explicit Place(const knet::LaunchGroup<Item>& launch_group) : tensor(0) {
    for (int end = launch_group.count; end - tensor > 1;) {  // the last that begins here or before
      const int middle = (tensor + end) / 2;
      (launch_group.first_block[middle] <= blockIdx.x ? tensor : end) = middle;
    }
    const uint32_t block = blockIdx.x - launch_group.first_block[tensor];
    thread = static_cast<int64_t>(block) * blockDim.x + threadIdx.x;
  }
  int tensor;
  int64_t thread;
};

KNET_HD bool is_aligned(const void* pointer, int64_t bytes) {
  return (reinterpret_cast<uintptr_t>(pointer) & static_cast<uint64_t>(bytes - 1)) == 0;
}

// Starts blocks of block_threads threads each; nullptr or the error's text.
template <class... Params, class... Args>
const char* launch(void (*kernel)(Params...), int64_t blocks, int block_threads, void* stream,
                   const Args&... args) {
  if (blocks == 0)
    return nullptr;
  if (blocks > knet::kMaxBlocks)
    return "more values than one grid can hold";
#if defined(KNET_EMULATOR)
  static_cast<void>(stream);
  emulator::launch(kernel, static_cast<uint32_t>(blocks), block_threads, args...);
#else
  kernel<<<static_cast<uint32_t>(blocks), block_threads, 0, static_cast<cudaStream_t>(stream)>>>(
      args...);
#endif
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace
