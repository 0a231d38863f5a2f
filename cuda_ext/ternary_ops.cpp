// Registers the kernels for the schemas of knet_hvd/ops/schemas.py; their Python wrappers check the
// arguments. Only this file, and the two headers beside it, see torch.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <string>
#include <vector>

#include "cuda/launch_count.h"
#include "cuda/statistics_launches.h"
#include "torch_arguments.h"
#include "torch_devices.h"

namespace {

// --- The ops: what belongs to each tensor lies in the tensors' order in what they share

// Fills in where each tensor's chunks are summed and where its results go.
template <class Device>
void run_statistics(TensorList values, int64_t scale_group_size, knet::StatisticsArgs args,
                    const Tensor& result) {
  std::vector<knet::StatisticsArgs> tensors;
  int64_t chunks = 0;
  args.scale_group_size = size_or_whole(scale_group_size);
  for (const Tensor& t : values) {
    args.values = t.const_data_ptr();
    args.dtype = dtype_of(t);
    args.num_values = t.numel();
    tensors.push_back(args);
    chunks += knet::count_chunks(args);
  }
  const Tensor partial = at::empty({chunks, 2}, result.options().dtype(at::kDouble));
  double* next_partial = partial.mutable_data_ptr<double>();
  int64_t first = 0;  // scale group of the tensor
  for (auto& tensor : tensors) {
    tensor.partial = next_partial;
    tensor.moments = args.moments != nullptr ? args.moments + 2 * first : nullptr;
    tensor.scales = args.scales != nullptr ? args.scales + first : nullptr;
    next_partial += 2 * knet::count_chunks(tensor);
    first += knet::count_scale_groups(tensor.num_values, tensor.scale_group_size);
  }
  Device::statistics(tensors, result);
}

int64_t num_scale_groups(TensorList values, int64_t scale_group_size) {
  int64_t count = 0;
  for (const Tensor& t : values) count += num_scale_groups(t, scale_group_size);
  return count;
}

template <class Device>
Tensor statistics(TensorList values, int64_t scale_group_size) {
  Tensor result = at::empty({num_scale_groups(values, scale_group_size), 2},
                            values.front().options().dtype(at::kDouble));
  knet::StatisticsArgs args{};
  args.moments = result.mutable_data_ptr<double>();
  run_statistics<Device>(values, scale_group_size, args, result);
  return result;
}

template <class Device>
void max_abs(TensorList values, int64_t scale_group_size, const Tensor& result) {
  std::vector<knet::MaxAbsArgs> tensors;
  float* next = result.mutable_data_ptr<float>();
  for (const Tensor& t : values) {
    tensors.push_back(
        {t.const_data_ptr(), dtype_of(t), t.numel(), size_or_whole(scale_group_size), next});
    next += num_scale_groups(t, scale_group_size);
  }
  Device::max_abs(tensors, result);
}

template <class Device>
Tensor scales(TensorList values, int64_t scale_group_size, int64_t rule, double clip_factor) {
  Tensor result = at::zeros({num_scale_groups(values, scale_group_size)},
                            values.front().options().dtype(at::kFloat));
  knet::StatisticsArgs args{};
  args.rule = static_cast<knet::ScaleRule>(rule);
  args.clip_factor = clip_factor;
  args.scales = result.mutable_data_ptr<float>();
  if (args.rule == knet::ScaleRule::kMax)
    max_abs<Device>(values, scale_group_size, result);
  else
    run_statistics<Device>(values, scale_group_size, args, result);
  return result;
}

template <class Device>
void ternarize(TensorList values, const Tensor& scales, int64_t scale_group_size, int64_t format,
               IntArrayRef key, IntArrayRef streams, IntArrayRef first_values, bool stochastic,
               Tensor& payload) {
  std::vector<knet::EncodeArgs> tensors;
  const float* next_scale = scales.const_data_ptr<float>();
  auto* next_byte = payload.mutable_data_ptr<uint8_t>();
  const int64_t block = knet::block_values(static_cast<WireFormat>(format));
  for (size_t i = 0; i < values.size(); ++i) {
    tensors.push_back(encode_args(values[i], next_scale, scale_group_size, format, key, streams[i],
                                  first_values[i], stochastic, next_byte));
    next_scale += num_scale_groups(values[i], scale_group_size);
    next_byte += num_blocks(values[i], block) * knet::kBlockBytes;
  }
  Device::encode(tensors, payload);
}

template <class Device>
void decode_mean(const Tensor& payloads, const Tensor& scales, int64_t scale_group_size,
                 int64_t format, int64_t divisor, TensorList outs) {
  std::vector<knet::DecodeArgs> tensors;
  const float* next_scale = scales.const_data_ptr<float>();
  const int64_t block = knet::block_values(static_cast<WireFormat>(format));
  int64_t at = 0;
  for (const Tensor& out : outs) {
    tensors.push_back(
        decode_args(payloads, at, next_scale, scale_group_size, format, divisor, out));
    next_scale += num_scale_groups(out, scale_group_size);
    at += num_blocks(out, block) * knet::kBlockBytes;
  }
  Device::decode(tensors, payloads);
}

template <class Device>
void dequantize(const Tensor& sums, const Tensor& scales, int64_t scale_group_size, int64_t format,
                int64_t divisor, TensorList outs) {
  std::vector<knet::DequantizeArgs> tensors;
  const float* next_scale = scales.const_data_ptr<float>();
  const auto* next_sum = sums.const_data_ptr<int16_t>();
  const int64_t block = knet::block_values(static_cast<WireFormat>(format));
  for (const Tensor& out : outs) {
    tensors.push_back(dequantize_args(next_sum, next_scale, scale_group_size, divisor, out));
    next_scale += num_scale_groups(out, scale_group_size);
    next_sum += num_blocks(out, block) * block;
  }
  Device::dequantize(tensors, sums);
}

template <class Device>
void unpack_sum(const Tensor& payloads, int64_t format, Tensor& sums) {
  auto args = decode_args(payloads, 0, format, sums);
  args.sums = sums.mutable_data_ptr<int16_t>();
  Device::decode(args, sums);
}

template <class Device>
void pack_digits(const Tensor& values, int64_t base, int64_t offset, int64_t num_digits,
                 Tensor& words) {
  const knet::PackArgs args{digits(values, base, offset, num_digits),
                            values.const_data_ptr<int16_t>(),
                            static_cast<uint64_t*>(words.mutable_data_ptr())};
  Device::pack_digits(args, values);
}

template <class Device>
void unpack_digits(const Tensor& words, int64_t base, int64_t offset, int64_t num_digits,
                   Tensor& values) {
  const knet::UnpackArgs args{digits(values, base, offset, num_digits),
                              static_cast<const uint64_t*>(words.const_data_ptr()),
                              values.mutable_data_ptr<int16_t>()};
  Device::unpack_digits(args, values);
}

template <class Device>
void register_kernels(torch::Library& m) {
  m.impl("statistics", statistics<Device>);
  m.impl("scales", scales<Device>);
  m.impl("ternarize", ternarize<Device>);
  m.impl("unpack_sum", unpack_sum<Device>);
  m.impl("decode_mean", decode_mean<Device>);
  m.impl("dequantize", dequantize<Device>);
  m.impl("pack_digits", pack_digits<Device>);
  m.impl("unpack_digits", unpack_digits<Device>);
}

std::string cpu_backend() { return knet::cpu_kernels().name; }

int64_t cuda_launches(const std::string& op, IntArrayRef num_values, int64_t scale_group_size) {
  const int64_t launches =
      knet::count_launches(op, num_values.data(), static_cast<int64_t>(num_values.size()),
                           size_or_whole(scale_group_size));
  TORCH_CHECK(launches >= 0, "no op of a list of tensors has the name ", op);
  return launches;
}

TORCH_LIBRARY_FRAGMENT(knet_hvd, m) {
  m.def("cpu_backend() -> str", cpu_backend);
  m.def("_cuda_launches(str op, int[] num_values, int scale_group_size) -> int", cuda_launches);
}

TORCH_LIBRARY_IMPL(knet_hvd, CPU, m) { register_kernels<Cpu>(m); }

#if defined(KNET_WITH_CUDA)
TORCH_LIBRARY_IMPL(knet_hvd, CUDA, m) { register_kernels<Cuda>(m); }
#endif

}  // namespace
