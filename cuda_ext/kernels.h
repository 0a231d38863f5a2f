// Torch-free launchers: pointers and sizes in, nothing allocated, nothing checked.
//
// The CPU table holds one entry per instruction set; callers split the range [begin, end) of
// blocks over threads, and the result does not depend on how.
#pragma once

#include "codec_core.h"

namespace knet {

struct EncodeArgs {
  const void* values;  // [num_values] of dtype
  DType dtype;
  int64_t num_values;
  const float* scales;  // [ceil(num_values / bucket_size)]
  int64_t bucket_size;  // a multiple of kGroup
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
  const float* scales;  // [ceil(num_values / bucket_size)]
  int64_t bucket_size;
  int32_t divisor;
};

struct DequantizeArgs {
  const int16_t* sums;  // [num_values]
  int64_t num_values;
  const float* scales;
  int64_t bucket_size;
  int32_t divisor;
  void* values;  // [num_values] of dtype
  DType dtype;
};

struct DigitsArgs {
  int16_t* values;  // [num_values]; read by pack, written by unpack
  int64_t num_values;
  uint32_t base;
  int32_t offset;  // digit = value + offset
  int32_t num_digits;
  uint64_t* words;  // [num_blocks * kLevelWords]
};

// x [num_values] in buckets -> (sum, sum of squares) of each chunk of each bucket.
struct StatisticsArgs {
  const void* values;
  DType dtype;
  int64_t num_values;
  int64_t bucket_size;
  double* partial;  // [num_buckets, chunks_per_bucket, 2]
  int64_t chunks_per_bucket;
};

struct MaxAbsArgs {
  const void* values;
  DType dtype;
  int64_t num_values;
  int64_t bucket_size;
  float* result;  // [num_buckets]
};

struct CpuKernels {
  const char* name;
  void (*encode)(const EncodeArgs&, int64_t begin, int64_t end);          // blocks
  void (*decode)(const DecodeArgs&, int64_t begin, int64_t end);          // blocks
  void (*dequantize)(const DequantizeArgs&, int64_t begin, int64_t end);  // groups
  void (*pack_digits)(const DigitsArgs&, int64_t begin, int64_t end);     // word blocks
  void (*unpack_digits)(const DigitsArgs&, int64_t begin, int64_t end);   // word blocks
  void (*statistics)(const StatisticsArgs&, int64_t begin, int64_t end);  // chunks
  void (*max_abs)(const MaxAbsArgs&, int64_t begin, int64_t end);         // buckets
};

CpuKernels portable_kernels();
#if defined(KNET_HAVE_X86_SIMD)
CpuKernels avx2_kernels();
CpuKernels avx512_kernels();
#endif

// The fastest table this processor runs, or the one KNET_CPU=portable|avx2|avx512 names.
// Throws std::runtime_error where that one is unknown or cannot run here.
const CpuKernels& cpu_kernels();

// Sums the chunks of one bucket: partial [num_chunks, 2] -> result [2].
void final_statistics(const double* partial, int64_t num_chunks, double* result);

#if defined(KNET_WITH_CUDA)
// CUDA twins: same arguments in device memory, launched on `stream` (a cudaStream_t).
// They return nullptr or the text of the launch's error. max_abs_cuda needs result to be zero.
const char* encode_cuda(const EncodeArgs&, void* stream);
const char* decode_cuda(const DecodeArgs&, void* stream);
const char* dequantize_cuda(const DequantizeArgs&, void* stream);
const char* pack_digits_cuda(const DigitsArgs&, void* stream);
const char* unpack_digits_cuda(const DigitsArgs&, void* stream);
const char* statistics_cuda(const StatisticsArgs&, double* result, void* stream);
const char* max_abs_cuda(const MaxAbsArgs&, void* stream);
#endif

}  // namespace knet
