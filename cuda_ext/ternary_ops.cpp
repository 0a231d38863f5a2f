// The only file that sees torch: checks nothing (the schemas' Python wrappers do), splits the
// work over torch's threads, and registers the kernels for the schemas of knet_hvd/ops/schemas.py.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cpu/threads.h"
#include "cuda/launch_count.h"
#include "cuda/launch_groups.h"

#if defined(KNET_WITH_CUDA)
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace {

using at::ArrayRef;
using at::IntArrayRef;
using at::Tensor;
using at::TensorList;
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

int64_t size_or_whole(int64_t scale_group_size) {
  return scale_group_size > 0 ? scale_group_size : knet::kWholeTensor;
}

int64_t num_scale_groups(const Tensor& values, int64_t scale_group_size) {
  return knet::count_scale_groups(values.numel(), size_or_whole(scale_group_size));
}

int64_t num_blocks(const Tensor& values, int64_t block_values) {
  return knet::ceil_div(values.numel(), block_values);
}

// --- The kernels' arguments for one tensor, or for a part of what many tensors share

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

// --- The kernels, on the CPU and on CUDA devices

struct Cpu {
  // Runs kernel(args, begin, end) over [0, count) items of `item_values` values each.
  template <class Args>
  static void parallel(int64_t count, int64_t item_values,
                       void (*kernel)(const Args&, int64_t, int64_t), const Args& args) {
    const int64_t grain = std::max<int64_t>(1, kGrainValues / item_values);
    const auto run = [&](int64_t begin, int64_t end) {
      const knet::StandardFloats standard;
      kernel(args, begin, end);
    };
    if (count > grain && !knet::is_forked())
      at::parallel_for(0, count, grain, run);
    else if (count > 0)
      run(0, count);
  }

  static void encode(ArrayRef<knet::EncodeArgs> tensors, const Tensor&) {
    for (const auto& args : tensors) {
      const int64_t block = knet::block_values(args.format);
      parallel(knet::ceil_div(args.num_values, block), block, knet::cpu_kernels().encode, args);
    }
  }
  static void decode(ArrayRef<knet::DecodeArgs> tensors, const Tensor&) {
    for (const auto& args : tensors) {
      const int64_t block = knet::block_values(args.format);
      parallel(knet::ceil_div(args.num_values, block), block, knet::cpu_kernels().decode, args);
    }
  }
  static void dequantize(ArrayRef<knet::DequantizeArgs> tensors, const Tensor&) {
    for (const auto& args : tensors)
      parallel(knet::ceil_div(args.num_values, knet::kGroup), knet::kGroup,
               knet::cpu_kernels().dequantize, args);
  }
  static void pack_digits(const knet::PackArgs& args, const Tensor& values) {
    const int64_t block = knet::kLevelWords * args.num_digits;
    parallel(num_blocks(values, block), block, knet::cpu_kernels().pack_digits, args);
  }
  static void unpack_digits(const knet::UnpackArgs& args, const Tensor& values) {
    const int64_t block = knet::kLevelWords * args.num_digits;
    parallel(num_blocks(values, block), block, knet::cpu_kernels().unpack_digits, args);
  }
  static void statistics(ArrayRef<knet::StatisticsArgs> tensors, const Tensor&) {
    for (const auto& args : tensors) {
      const int64_t scale_groups = knet::count_scale_groups(args.num_values, args.scale_group_size);
      const int64_t chunks = knet::chunks_per_scale(args.num_values, args.scale_group_size);
      parallel(scale_groups * chunks, std::min<int64_t>(args.scale_group_size, knet::kStatChunk),
               knet::cpu_kernels().statistics, args);
      const knet::StandardFloats standard;
      for (int64_t scale_group = 0; scale_group < scale_groups; ++scale_group)
        knet::final_statistics(args, scale_group);
    }
  }
  static void max_abs(ArrayRef<knet::MaxAbsArgs> tensors, const Tensor&) {
    for (const auto& args : tensors)
      parallel(knet::count_scale_groups(args.num_values, args.scale_group_size),
               args.scale_group_size, knet::cpu_kernels().max_abs, args);
  }
};

#if defined(KNET_WITH_CUDA)

struct Cuda {
  // Runs launch(stream) on the tensor's device and current stream.
  template <class Launch>
  static void launch_on(const Tensor& t, const Launch& launch) {
    const c10::cuda::CUDAGuard guard(t.device());
    const char* error = launch(c10::cuda::getCurrentCUDAStream().stream());
    TORCH_CHECK(error == nullptr, "knet_hvd kernel launch failed: ", error);
  }
  template <class Args>
  static void launch_all(const char* (*launch)(const Args*, int64_t, void*), ArrayRef<Args> tensors,
                         const Tensor& on) {
    if (!tensors.empty())
      launch_on(on, [&](void* stream) {
        return launch(tensors.data(), static_cast<int64_t>(tensors.size()), stream);
      });
  }

  static void encode(ArrayRef<knet::EncodeArgs> tensors, const Tensor& on) {
    launch_all(knet::encode_cuda, tensors, on);
  }
  static void decode(ArrayRef<knet::DecodeArgs> tensors, const Tensor& on) {
    launch_all(knet::decode_cuda, tensors, on);
  }
  static void dequantize(ArrayRef<knet::DequantizeArgs> tensors, const Tensor& on) {
    launch_all(knet::dequantize_cuda, tensors, on);
  }
  static void pack_digits(const knet::PackArgs& args, const Tensor& on) {
    launch_on(on, [&](void* stream) { return knet::pack_digits_cuda(args, stream); });
  }
  static void unpack_digits(const knet::UnpackArgs& args, const Tensor& on) {
    launch_on(on, [&](void* stream) { return knet::unpack_digits_cuda(args, stream); });
  }
  static void statistics(ArrayRef<knet::StatisticsArgs> tensors, const Tensor& on) {
    launch_all(knet::statistics_cuda, tensors, on);
  }
  static void max_abs(ArrayRef<knet::MaxAbsArgs> tensors, const Tensor& on) {
    launch_all(knet::max_abs_cuda, tensors, on);
  }
};

#endif

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
