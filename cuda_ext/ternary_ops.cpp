// The only file that sees torch: checks nothing (the schemas' Python wrappers do), splits the
// work over torch's threads, and registers the kernels for the schemas of knet_hvd/ops/schemas.py.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

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

int64_t bucket_or_all(int64_t scale_group_size) {
  return scale_group_size > 0 ? scale_group_size : knet::kWholeTensor;
}

int64_t num_scale_groups(const Tensor& values, int64_t scale_group_size) {
  return knet::count_buckets(values.numel(), bucket_or_all(scale_group_size));
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
          bucket_or_all(scale_group_size),
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
  args.scale_group_size = bucket_or_all(scale_group_size);
  args.divisor = static_cast<int32_t>(divisor);
  return args;
}

knet::DequantizeArgs dequantize_args(const int16_t* sums, const float* scales,
                                     int64_t scale_group_size, int64_t divisor, const Tensor& out) {
  return {sums,
          out.numel(),
          scales,
          bucket_or_all(scale_group_size),
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

// --- The kernels, on the CPU and on CUDA devices

struct Cpu {
  // Runs kernel(args, begin, end) over [0, count) items of `item_values` values each.
  template <class Args>
  static void parallel(int64_t count, int64_t item_values,
                       void (*kernel)(const Args&, int64_t, int64_t), const Args& args) {
    const int64_t grain = std::max<int64_t>(1, kGrainValues / item_values);
    at::parallel_for(0, count, grain,
                     [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
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
  static void pack_digits(const knet::DigitsArgs& args, const Tensor& values) {
    const int64_t block = knet::kLevelWords * args.num_digits;
    parallel(num_blocks(values, block), block, knet::cpu_kernels().pack_digits, args);
  }
  static void unpack_digits(const knet::DigitsArgs& args, const Tensor& values) {
    const int64_t block = knet::kLevelWords * args.num_digits;
    parallel(num_blocks(values, block), block, knet::cpu_kernels().unpack_digits, args);
  }
  static void statistics(ArrayRef<knet::StatisticsArgs> tensors, const Tensor&) {
    for (const auto& args : tensors) {
      const int64_t buckets = knet::count_buckets(args.num_values, args.scale_group_size);
      const int64_t chunks = knet::chunks_per_bucket(args.num_values, args.scale_group_size);
      parallel(buckets * chunks, std::min<int64_t>(args.scale_group_size, knet::kStatChunk),
               knet::cpu_kernels().statistics, args);
      for (int64_t bucket = 0; bucket < buckets; ++bucket)
        knet::final_statistics(args.partial + 2 * bucket * chunks, chunks,
                               args.result + 2 * bucket);
    }
  }
  static void max_abs(ArrayRef<knet::MaxAbsArgs> tensors, const Tensor&) {
    for (const auto& args : tensors)
      parallel(knet::count_buckets(args.num_values, args.scale_group_size), args.scale_group_size,
               knet::cpu_kernels().max_abs, args);
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
  static void pack_digits(const knet::DigitsArgs& args, const Tensor& on) {
    launch_on(on, [&](void* stream) { return knet::pack_digits_cuda(args, stream); });
  }
  static void unpack_digits(const knet::DigitsArgs& args, const Tensor& on) {
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

// --- The ops of many tensors: what belongs to them lies in their order in what they share

template <class Device>
Tensor statistics_many(TensorList values, int64_t scale_group_size) {
  std::vector<knet::StatisticsArgs> tensors;
  int64_t buckets = 0, chunks = 0;
  for (const Tensor& t : values) {  // where each begins, as numbers until there is memory
    tensors.push_back({t.const_data_ptr(), dtype_of(t), t.numel(), bucket_or_all(scale_group_size),
                       nullptr, nullptr});
    buckets += num_scale_groups(t, scale_group_size);
    chunks += knet::count_chunks(tensors.back());
  }
  const auto options = values.front().options().dtype(at::kDouble);
  const Tensor partial = at::empty({chunks, 2}, options);
  Tensor result = at::empty({buckets, 2}, options);
  double *next_partial = partial.mutable_data_ptr<double>(),
         *next_result = result.mutable_data_ptr<double>();
  for (auto& args : tensors) {
    args.partial = next_partial, args.result = next_result;
    next_partial += 2 * knet::count_chunks(args);
    next_result += 2 * knet::count_buckets(args.num_values, args.scale_group_size);
  }
  Device::statistics(tensors, result);
  return result;
}

template <class Device>
Tensor max_abs_many(TensorList values, int64_t scale_group_size) {
  int64_t buckets = 0;
  for (const Tensor& t : values) buckets += num_scale_groups(t, scale_group_size);
  Tensor result = at::zeros({buckets}, values.front().options().dtype(at::kFloat));
  std::vector<knet::MaxAbsArgs> tensors;
  float* next = result.mutable_data_ptr<float>();
  for (const Tensor& t : values) {
    tensors.push_back(
        {t.const_data_ptr(), dtype_of(t), t.numel(), bucket_or_all(scale_group_size), next});
    next += num_scale_groups(t, scale_group_size);
  }
  Device::max_abs(tensors, result);
  return result;
}

template <class Device>
void ternarize_many(TensorList values, const Tensor& scales, int64_t scale_group_size,
                    int64_t format, IntArrayRef key, IntArrayRef streams, IntArrayRef first_values,
                    bool stochastic, Tensor& payload) {
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
void decode_mean_many(const Tensor& payloads, const Tensor& scales, int64_t scale_group_size,
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
void dequantize_many(const Tensor& sums, const Tensor& scales, int64_t scale_group_size,
                     int64_t format, int64_t divisor, TensorList outs) {
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

// --- The ops of one tensor

template <class Device>
Tensor statistics(const Tensor& values, int64_t scale_group_size) {
  return statistics_many<Device>(values, scale_group_size);
}

template <class Device>
Tensor max_abs(const Tensor& values, int64_t scale_group_size) {
  return max_abs_many<Device>(values, scale_group_size);
}

// `key` is (seed, rank, stream, step).
template <class Device>
void ternarize(const Tensor& values, const Tensor& scales, int64_t scale_group_size, int64_t format,
               IntArrayRef key, int64_t first_value, bool stochastic, Tensor& payload) {
  Device::encode(encode_args(values, scales.const_data_ptr<float>(), scale_group_size, format,
                             {key[0], key[1], key[3]}, key[2], first_value, stochastic,
                             payload.mutable_data_ptr<uint8_t>()),
                 payload);
}

template <class Device>
void unpack_sum(const Tensor& payloads, int64_t format, Tensor& sums) {
  auto args = decode_args(payloads, 0, format, sums);
  args.sums = sums.mutable_data_ptr<int16_t>();
  Device::decode(args, sums);
}

template <class Device>
void decode_mean(const Tensor& payloads, const Tensor& scales, int64_t scale_group_size,
                 int64_t format, int64_t divisor, Tensor& out) {
  Device::decode(decode_args(payloads, 0, scales.const_data_ptr<float>(), scale_group_size, format,
                             divisor, out),
                 out);
}

template <class Device>
void dequantize(const Tensor& sums, const Tensor& scales, int64_t scale_group_size, int64_t divisor,
                Tensor& out) {
  Device::dequantize(dequantize_args(sums.const_data_ptr<int16_t>(), scales.const_data_ptr<float>(),
                                     scale_group_size, divisor, out),
                     out);
}

template <class Device>
void pack_digits(const Tensor& values, int64_t base, int64_t offset, int64_t num_digits,
                 Tensor& words) {
  Device::pack_digits(digits_args(values, base, offset, num_digits, words), values);
}

template <class Device>
void unpack_digits(const Tensor& words, int64_t base, int64_t offset, int64_t num_digits,
                   Tensor& values) {
  Device::unpack_digits(digits_args(values, base, offset, num_digits, words), values);
}

template <class Device>
void register_kernels(torch::Library& m) {
  m.impl("statistics", statistics<Device>);
  m.impl("max_abs", max_abs<Device>);
  m.impl("ternarize", ternarize<Device>);
  m.impl("unpack_sum", unpack_sum<Device>);
  m.impl("decode_mean", decode_mean<Device>);
  m.impl("dequantize", dequantize<Device>);
  m.impl("pack_digits", pack_digits<Device>);
  m.impl("unpack_digits", unpack_digits<Device>);
  m.impl("statistics_many", statistics_many<Device>);
  m.impl("max_abs_many", max_abs_many<Device>);
  m.impl("ternarize_many", ternarize_many<Device>);
  m.impl("decode_mean_many", decode_mean_many<Device>);
  m.impl("dequantize_many", dequantize_many<Device>);
}

std::string cpu_backend() { return knet::cpu_kernels().name; }

// The launches that one call takes on a GPU for fp32 tensors of these sizes.
int64_t cuda_launches(const std::string& op, IntArrayRef num_values, int64_t scale_group_size) {
  int64_t launches = 0;
  const int64_t size = bucket_or_all(scale_group_size),
                count = static_cast<int64_t>(num_values.size());
  const auto add = [&](auto&&...) -> const char* {
    ++launches;
    return nullptr;
  };
  const auto with = [&](auto args) {
    std::vector<decltype(args)> tensors(num_values.size(), args);
    for (size_t i = 0; i < num_values.size(); ++i) {
      tensors[i].num_values = num_values[i], tensors[i].scale_group_size = size;
    }
    return tensors;
  };
  if (op == "statistics_many") {
    const auto tensors = with(knet::StatisticsArgs{});
    knet::chunk_batches(tensors.data(), count, add);
    knet::final_batches(tensors.data(), count, knet::final_threads(tensors.data(), count), add);
  } else if (op == "max_abs_many") {
    knet::max_batches(with(knet::MaxAbsArgs{}).data(), count, add);
  } else if (op == "ternarize_many") {
    knet::encode_batches(with(knet::EncodeArgs{}).data(), count, add);
  } else if (op == "decode_mean_many") {
    knet::decode_batches(with(knet::DecodeArgs{}).data(), count, add);
  } else {
    TORCH_CHECK(op == "dequantize_many", "no op of many tensors has the name ", op);
    knet::dequantize_batches(with(knet::DequantizeArgs{}).data(), count, add);
  }
  return launches;
}

TORCH_LIBRARY_FRAGMENT(knet_hvd, m) {
  m.def("cpu_backend() -> str", cpu_backend);
  m.def("cuda_launches(str op, int[] num_values, int scale_group_size) -> int", cuda_launches);
}

TORCH_LIBRARY_IMPL(knet_hvd, CPU, m) { register_kernels<Cpu>(m); }

#if defined(KNET_WITH_CUDA)
TORCH_LIBRARY_IMPL(knet_hvd, CUDA, m) { register_kernels<Cuda>(m); }
#endif

}  // namespace
