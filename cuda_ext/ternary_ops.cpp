// The only file that sees torch: checks nothing (the schemas' Python wrappers do), splits the
// work over torch's threads, and registers the kernels for the schemas of knet_hvd/ops/schemas.py.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "kernels.h"

#if defined(KNET_WITH_CUDA)
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace {

using at::Tensor;
using knet::DType;
using knet::WireFormat;

constexpr int64_t kGrainValues = 1 << 15;  // below this a second thread costs more than it saves

DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case at::kDouble: return DType::kFloat64;
    case at::kHalf: return DType::kFloat16;
    case at::kBFloat16: return DType::kBFloat16;
    default: TORCH_CHECK(t.scalar_type() == at::kFloat, "unsupported dtype ", t.scalar_type());
  }
  return DType::kFloat32;
}

int64_t bucket_or_all(int64_t bucket_size, const Tensor& values) {
  return bucket_size > 0 ? bucket_size : std::max<int64_t>(knet::kGroup, values.numel());
}

knet::EncodeArgs encode_args(const Tensor& values, const Tensor& scales, int64_t bucket_size,
                             int64_t format, at::IntArrayRef key, int64_t first_value,
                             bool stochastic, Tensor& payload) {
  return {values.const_data_ptr(),
          dtype_of(values),
          values.numel(),
          scales.const_data_ptr<float>(),
          bucket_or_all(bucket_size, values),
          static_cast<WireFormat>(format),
          {static_cast<uint32_t>(key[0]), static_cast<uint32_t>(key[1]),
           static_cast<uint32_t>(key[2]), static_cast<uint64_t>(key[3])},
          static_cast<uint32_t>(first_value / knet::kGroup),
          stochastic,
          payload.mutable_data_ptr<uint8_t>()};
}

knet::DecodeArgs decode_args(const Tensor& payloads, int64_t format, const Tensor& out) {
  knet::DecodeArgs args{};
  args.payloads = payloads.const_data_ptr<uint8_t>();
  args.num_payloads = payloads.size(0);
  args.row_bytes = payloads.stride(0);
  args.format = static_cast<WireFormat>(format);
  args.num_values = out.numel();
  return args;
}

knet::DecodeArgs decode_args(const Tensor& payloads, const Tensor& scales, int64_t bucket_size,
                             int64_t format, int64_t divisor, Tensor& out) {
  knet::DecodeArgs args = decode_args(payloads, format, out);
  args.values = out.mutable_data_ptr();
  args.dtype = dtype_of(out);
  args.scales = scales.const_data_ptr<float>();
  args.bucket_size = bucket_or_all(bucket_size, out);
  args.divisor = static_cast<int32_t>(divisor);
  return args;
}

knet::DequantizeArgs dequantize_args(const Tensor& sums, const Tensor& scales, int64_t bucket_size,
                                     int64_t divisor, Tensor& out) {
  return {sums.const_data_ptr<int16_t>(),
          sums.numel(),
          scales.const_data_ptr<float>(),
          bucket_or_all(bucket_size, sums),
          static_cast<int32_t>(divisor),
          out.mutable_data_ptr(),
          dtype_of(out)};
}

knet::DigitsArgs digits_args(const Tensor& values, int64_t base, int64_t offset, int64_t num_digits,
                             const Tensor& words) {
  return {static_cast<int16_t*>(values.data_ptr()),
          values.numel(),
          static_cast<uint32_t>(base),
          static_cast<int32_t>(offset),
          static_cast<int32_t>(num_digits),
          static_cast<uint64_t*>(words.data_ptr())};
}

int64_t num_blocks(const Tensor& values, int64_t block_values) {
  return knet::ceil_div(values.numel(), block_values);
}

// Runs kernel(args, begin, end) over [0, count) items of `item_values` values each.
template <class Args>
void parallel(int64_t count, int64_t item_values, void (*kernel)(const Args&, int64_t, int64_t),
              const Args& args) {
  const int64_t grain = std::max<int64_t>(1, kGrainValues / item_values);
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
}

void ternarize_cpu(const Tensor& values, const Tensor& scales, int64_t bucket_size, int64_t format,
                   at::IntArrayRef key, int64_t first_value, bool stochastic, Tensor& payload) {
  const auto args =
      encode_args(values, scales, bucket_size, format, key, first_value, stochastic, payload);
  const int64_t block = knet::block_values(args.format);
  parallel(num_blocks(values, block), block, knet::cpu_kernels().encode, args);
}

void unpack_sum_cpu(const Tensor& payloads, int64_t format, Tensor& sums) {
  auto args = decode_args(payloads, format, sums);
  args.sums = sums.mutable_data_ptr<int16_t>();
  const int64_t block = knet::block_values(args.format);
  parallel(num_blocks(sums, block), block, knet::cpu_kernels().decode, args);
}

void decode_mean_cpu(const Tensor& payloads, const Tensor& scales, int64_t bucket_size,
                     int64_t format, int64_t divisor, Tensor& out) {
  const auto args = decode_args(payloads, scales, bucket_size, format, divisor, out);
  const int64_t block = knet::block_values(args.format);
  parallel(num_blocks(out, block), block, knet::cpu_kernels().decode, args);
}

void dequantize_cpu(const Tensor& sums, const Tensor& scales, int64_t bucket_size, int64_t divisor,
                    Tensor& out) {
  const auto args = dequantize_args(sums, scales, bucket_size, divisor, out);
  parallel(num_blocks(sums, knet::kGroup), knet::kGroup, knet::cpu_kernels().dequantize, args);
}

void pack_digits_cpu(const Tensor& values, int64_t base, int64_t offset, int64_t num_digits,
                     Tensor& words) {
  const auto args = digits_args(values, base, offset, num_digits, words);
  const int64_t block = knet::kLevelWords * num_digits;
  parallel(num_blocks(values, block), block, knet::cpu_kernels().pack_digits, args);
}

void unpack_digits_cpu(const Tensor& words, int64_t base, int64_t offset, int64_t num_digits,
                       Tensor& values) {
  const auto args = digits_args(values, base, offset, num_digits, words);
  const int64_t block = knet::kLevelWords * num_digits;
  parallel(num_blocks(values, block), block, knet::cpu_kernels().unpack_digits, args);
}

Tensor chunk_partials(const Tensor& values, int64_t bucket_size) {
  const int64_t buckets = std::max<int64_t>(1, knet::ceil_div(values.numel(), bucket_size));
  const int64_t longest = std::min(bucket_size, std::max<int64_t>(1, values.numel()));
  const int64_t chunks = knet::ceil_div(longest, knet::kStatChunk);
  return at::empty({buckets, chunks, 2}, values.options().dtype(at::kDouble));
}

knet::StatisticsArgs statistics_args(const Tensor& values, int64_t bucket_size, Tensor& partial) {
  return {values.const_data_ptr(),
          dtype_of(values),
          values.numel(),
          bucket_size,
          partial.mutable_data_ptr<double>(),
          partial.size(1)};
}

Tensor statistics_cpu(const Tensor& values, int64_t bucket_size) {
  Tensor partial = chunk_partials(values, bucket_or_all(bucket_size, values));
  const auto args = statistics_args(values, bucket_or_all(bucket_size, values), partial);
  const int64_t chunks = partial.size(1);
  parallel(partial.size(0) * chunks, std::min<int64_t>(args.bucket_size, knet::kStatChunk),
           knet::cpu_kernels().statistics, args);
  Tensor result = at::empty({partial.size(0), 2}, partial.options());
  for (int64_t bucket = 0; bucket < result.size(0); ++bucket)
    knet::final_statistics(args.partial + 2 * bucket * chunks, chunks,
                           result.mutable_data_ptr<double>() + 2 * bucket);
  return result;
}

Tensor max_abs_cpu(const Tensor& values, int64_t bucket_size) {
  const int64_t size = bucket_or_all(bucket_size, values);
  const int64_t buckets = std::max<int64_t>(1, knet::ceil_div(values.numel(), size));
  Tensor result = at::empty({buckets}, values.options().dtype(at::kFloat));
  const knet::MaxAbsArgs args{values.const_data_ptr(), dtype_of(values), values.numel(), size,
                              result.mutable_data_ptr<float>()};
  parallel(buckets, size, knet::cpu_kernels().max_abs, args);
  return result;
}

std::string cpu_backend() { return knet::cpu_kernels().name; }

#if defined(KNET_WITH_CUDA)

// Runs launch(stream) on the tensor's device and current stream.
template <class Launch>
void launch_on(const Tensor& t, const Launch& launch) {
  const c10::cuda::CUDAGuard guard(t.device());
  const char* error = launch(c10::cuda::getCurrentCUDAStream().stream());
  TORCH_CHECK(error == nullptr, "knet_hvd kernel launch failed: ", error);
}

void ternarize_cuda(const Tensor& values, const Tensor& scales, int64_t bucket_size, int64_t format,
                    at::IntArrayRef key, int64_t first_value, bool stochastic, Tensor& payload) {
  const auto args =
      encode_args(values, scales, bucket_size, format, key, first_value, stochastic, payload);
  launch_on(values, [&](void* stream) { return knet::encode_cuda(args, stream); });
}

void unpack_sum_cuda(const Tensor& payloads, int64_t format, Tensor& sums) {
  auto args = decode_args(payloads, format, sums);
  args.sums = sums.mutable_data_ptr<int16_t>();
  launch_on(sums, [&](void* stream) { return knet::decode_cuda(args, stream); });
}

void decode_mean_cuda(const Tensor& payloads, const Tensor& scales, int64_t bucket_size,
                      int64_t format, int64_t divisor, Tensor& out) {
  const auto args = decode_args(payloads, scales, bucket_size, format, divisor, out);
  launch_on(out, [&](void* stream) { return knet::decode_cuda(args, stream); });
}

void dequantize_cuda(const Tensor& sums, const Tensor& scales, int64_t bucket_size, int64_t divisor,
                     Tensor& out) {
  const auto args = dequantize_args(sums, scales, bucket_size, divisor, out);
  launch_on(sums, [&](void* stream) { return knet::dequantize_cuda(args, stream); });
}

void pack_digits_cuda(const Tensor& values, int64_t base, int64_t offset, int64_t num_digits,
                      Tensor& words) {
  const auto args = digits_args(values, base, offset, num_digits, words);
  launch_on(values, [&](void* stream) { return knet::pack_digits_cuda(args, stream); });
}

void unpack_digits_cuda(const Tensor& words, int64_t base, int64_t offset, int64_t num_digits,
                        Tensor& values) {
  const auto args = digits_args(values, base, offset, num_digits, words);
  launch_on(words, [&](void* stream) { return knet::unpack_digits_cuda(args, stream); });
}

Tensor statistics_cuda(const Tensor& values, int64_t bucket_size) {
  Tensor partial = chunk_partials(values, bucket_or_all(bucket_size, values));
  const auto args = statistics_args(values, bucket_or_all(bucket_size, values), partial);
  Tensor result = at::empty({partial.size(0), 2}, partial.options());
  double* out = result.mutable_data_ptr<double>();
  launch_on(values, [&](void* stream) { return knet::statistics_cuda(args, out, stream); });
  return result;
}

Tensor max_abs_cuda(const Tensor& values, int64_t bucket_size) {
  const int64_t size = bucket_or_all(bucket_size, values);
  const int64_t buckets = std::max<int64_t>(1, knet::ceil_div(values.numel(), size));
  Tensor result = at::zeros({buckets}, values.options().dtype(at::kFloat));
  const knet::MaxAbsArgs args{values.const_data_ptr(), dtype_of(values), values.numel(), size,
                              result.mutable_data_ptr<float>()};
  launch_on(values, [&](void* stream) { return knet::max_abs_cuda(args, stream); });
  return result;
}

TORCH_LIBRARY_IMPL(knet_hvd, CUDA, m) {
  m.impl("ternarize", ternarize_cuda);
  m.impl("unpack_sum", unpack_sum_cuda);
  m.impl("decode_mean", decode_mean_cuda);
  m.impl("dequantize", dequantize_cuda);
  m.impl("pack_digits", pack_digits_cuda);
  m.impl("unpack_digits", unpack_digits_cuda);
  m.impl("statistics", statistics_cuda);
  m.impl("max_abs", max_abs_cuda);
}

#endif

TORCH_LIBRARY_FRAGMENT(knet_hvd, m) { m.def("cpu_backend() -> str", cpu_backend); }

TORCH_LIBRARY_IMPL(knet_hvd, CPU, m) {
  m.impl("ternarize", ternarize_cpu);
  m.impl("unpack_sum", unpack_sum_cpu);
  m.impl("decode_mean", decode_mean_cpu);
  m.impl("dequantize", dequantize_cpu);
  m.impl("pack_digits", pack_digits_cpu);
  m.impl("unpack_digits", unpack_digits_cpu);
  m.impl("statistics", statistics_cpu);
  m.impl("max_abs", max_abs_cpu);
}

}  // namespace
