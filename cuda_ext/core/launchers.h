// Torch-free launchers: pointers and sizes in, nothing allocated, nothing checked.
//
// The CPU table holds one entry per instruction set; callers split the range [begin, end) of
// blocks over threads, and the result does not depend on how.
#pragma once

#include "core/codec.h"

namespace knet {

// A scale group size that is more than any tensor has values: one scale group.
constexpr int64_t kWholeTensor = int64_t{1} << 36;

struct EncodeArgs {
  const void* values;  // [num_values] of dtype
  DType dtype;
  int64_t num_values;
  const float* scales;       // [ceil(num_values / scale_group_size)]
  int64_t scale_group_size;  // a multiple of kGroup
  WireFormat format;
  RandomKey key;
  uint32_t first_group;  // of its tensor, where values are a part of one
  bool stochastic;
  uint8_t* payload;  // [num_blocks * kBlockBytes]
};

struct DecodeArgs {
  const uint8_t* payloads;  // num_payloads rows, row_bytes apart
  int64_t num_payloads, row_bytes;
  WireFormat format;
  int64_t num_values;
  int16_t* sums;  // either the sums of codes [num_values] ...
  void* values;   // ... or the values [num_values] of dtype
  DType dtype;
  const float* scales;  // [ceil(num_values / scale_group_size)]
  int64_t scale_group_size;
  int32_t divisor;
};

struct DequantizeArgs {
  const int16_t* sums;  // [num_values]
  int64_t num_values;
  const float* scales;
  int64_t scale_group_size;
  int32_t divisor;
  void* values;  // [num_values] of dtype
  DType dtype;
};

struct Digits {
  int64_t num_values;
  uint32_t base;
  int32_t offset;  // digit = value + offset
  int32_t num_digits;
};

struct PackArgs : Digits {
  const int16_t* values;  // [num_values]
  uint64_t* words;        // [num_blocks * kLevelWords]
};

struct UnpackArgs : Digits {
  const uint64_t* words;  // [num_blocks * kLevelWords]
  int16_t* values;        // [num_values]
};

// x [num_values] in scale groups -> (sum, sum of squares) of each chunk, then of each scale group:
// these moments themselves, or a scale made of them.
struct StatisticsArgs {
  const void* values;
  DType dtype;
  int64_t num_values;
  int64_t scale_group_size;
  double* partial;  // [num_scale_groups, chunks_per_scale, 2]
  double* moments;  // either [num_scale_groups, 2] ...
  float* scales;    // ... or [num_scale_groups]
  ScaleRule rule;   // of scales: kRms or kStd
  double clip_factor;
};

// x [num_values] in scale groups -> largest absolute value of each: the scale of kMax.
struct MaxAbsArgs {
  const void* values;
  DType dtype;
  int64_t num_values;
  int64_t scale_group_size;
  float* scales;  // [num_scale_groups]; +inf for NaN
};

KNET_HD int64_t count_scale_groups(int64_t num_values, int64_t scale_group_size) {
  return num_values > scale_group_size ? ceil_div(num_values, scale_group_size) : 1;
}

// Values of one scale group of a tensor.
KNET_HD int64_t values_in(int64_t scale_group, int64_t num_values, int64_t scale_group_size) {
  const int64_t left = num_values - scale_group * scale_group_size;
  return left < scale_group_size ? left : scale_group_size;
}

// Chunks of kStatChunk values in each scale group of a tensor.
KNET_HD int64_t chunks_per_scale(int64_t num_values, int64_t scale_group_size) {
  const int64_t longest = scale_group_size < num_values ? scale_group_size : num_values;
  return longest > 0 ? ceil_div(longest, kStatChunk) : 1;
}

struct CpuKernels {
  const char* name;
  void (*encode)(const EncodeArgs&, int64_t begin, int64_t end);          // blocks
  void (*decode)(const DecodeArgs&, int64_t begin, int64_t end);          // blocks
  void (*dequantize)(const DequantizeArgs&, int64_t begin, int64_t end);  // groups
  void (*pack_digits)(const PackArgs&, int64_t begin, int64_t end);       // word blocks
  void (*unpack_digits)(const UnpackArgs&, int64_t begin, int64_t end);   // word blocks
  void (*statistics)(const StatisticsArgs&, int64_t begin, int64_t end);  // chunks
  void (*max_abs)(const MaxAbsArgs&, int64_t begin, int64_t end);         // scale groups
};

CpuKernels portable_kernels();
#if defined(KNET_HAVE_X86_SIMD)
CpuKernels avx2_kernels();
CpuKernels avx512_kernels();
#endif

// The fastest table this processor runs, or the one KNET_CPU=portable|avx2|avx512 names.
// Throws std::runtime_error where that one is unknown or cannot run here.
const CpuKernels& cpu_kernels();

// Sums the chunks of one scale group; writes its moments or its scale.
void final_statistics(const StatisticsArgs&, int64_t scale_group);

#if defined(KNET_WITH_CUDA)
// CUDA twins: same arguments in device memory, launched on `stream` (a cudaStream_t). They return
// nullptr or the text of the launch's error. max_abs_cuda needs scales to be zero.
//
// Several tensors share launches (see cuda/launch_groups.h) and all arguments but those that say
// where a tensor lies, its dtype, its size, its stream of random numbers and its first group.
const char* encode_cuda(const EncodeArgs* tensors, int64_t count, void* stream);
const char* decode_cuda(const DecodeArgs* tensors, int64_t count, void* stream);
const char* dequantize_cuda(const DequantizeArgs* tensors, int64_t count, void* stream);
const char* pack_digits_cuda(const PackArgs&, void* stream);
const char* unpack_digits_cuda(const UnpackArgs&, void* stream);
// The partials of all tensors lie in one piece of memory, and so do the results.
const char* statistics_cuda(const StatisticsArgs* tensors, int64_t count, void* stream);
const char* max_abs_cuda(const MaxAbsArgs* tensors, int64_t count, void* stream);
#endif

}  // namespace knet
