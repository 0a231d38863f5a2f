// From tensors to the arguments of the kernels, for one tensor or a part of what several share.
#pragma once

#include <ATen/ATen.h>

#include "core/launchers.h"

namespace {

using at::ArrayRef;
using at::IntArrayRef;
using at::Tensor;
using at::TensorList;
using knet::DType;
using knet::WireFormat;

DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case at::kDouble: return DType::kFloat64;
    case at::kHalf: return DType::kFloat16;
    case at::kBFloat16: return DType::kBFloat16;
    default: TORCH_CHECK(t.scalar_type() == at::kFloat, "unsupported dtype ", t.scalar_type());
  }
  return DType::kFloat32;
}

int64_t size_or_whole(int64_t scale_group_size) {
  return scale_group_size > 0 ? scale_group_size : knet::kWholeTensor;
}

int64_t num_scale_groups(const Tensor& values, int64_t scale_group_size) {
  return knet::count_scale_groups(values.numel(), size_or_whole(scale_group_size));
}

int64_t num_blocks(const Tensor& values, int64_t block_values) {
  return knet::ceil_div(values.numel(), block_values);
}

// `key` is (seed, rank, step).
knet::EncodeArgs encode_args(const Tensor& values, const float* scales, int64_t scale_group_size,
                             int64_t format, IntArrayRef key, int64_t stream, int64_t first_value,
                             bool stochastic, uint8_t* payload) {
  return {values.const_data_ptr(),
          dtype_of(values),
          values.numel(),
          scales,
          size_or_whole(scale_group_size),
          static_cast<WireFormat>(format),
          {static_cast<uint32_t>(key[0]), static_cast<uint32_t>(key[1]),
           static_cast<uint32_t>(stream), static_cast<uint64_t>(key[2])},
          static_cast<uint32_t>(first_value / knet::kGroup),
          stochastic,
          payload};
}

// Of `payloads`, the bytes from `at` on.
knet::DecodeArgs decode_args(const Tensor& payloads, int64_t at, int64_t format,
                             const Tensor& out) {
  knet::DecodeArgs args{};
  args.payloads = payloads.const_data_ptr<uint8_t>() + at;
  args.num_payloads = payloads.size(0);
  args.row_bytes = payloads.stride(0);
  args.format = static_cast<WireFormat>(format);
  args.num_values = out.numel();
  return args;
}

knet::DecodeArgs decode_args(const Tensor& payloads, int64_t at, const float* scales,
                             int64_t scale_group_size, int64_t format, int64_t divisor,
                             const Tensor& out) {
  knet::DecodeArgs args = decode_args(payloads, at, format, out);
  args.values = out.mutable_data_ptr();
  args.dtype = dtype_of(out);
  args.scales = scales;
  args.scale_group_size = size_or_whole(scale_group_size);
  args.divisor = static_cast<int32_t>(divisor);
  return args;
}

knet::DequantizeArgs dequantize_args(const int16_t* sums, const float* scales,
                                     int64_t scale_group_size, int64_t divisor, const Tensor& out) {
  return {sums,
          out.numel(),
          scales,
          size_or_whole(scale_group_size),
          static_cast<int32_t>(divisor),
          out.mutable_data_ptr(),
          dtype_of(out)};
}

knet::Digits digits(const Tensor& values, int64_t base, int64_t offset, int64_t num_digits) {
  return {values.numel(), static_cast<uint32_t>(base), static_cast<int32_t>(offset),
          static_cast<int32_t>(num_digits)};
}

}  // namespace
