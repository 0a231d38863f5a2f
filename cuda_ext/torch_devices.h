// The kernels on the CPU, over torch's threads, and on CUDA devices, on torch's streams.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "cpu/threads.h"
#include "cuda/statistics_launches.h"
#include "torch_arguments.h"

#if defined(KNET_WITH_CUDA)
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace {

constexpr int64_t kGrainValues = 1 << 15;  // below this a second thread costs more than it saves

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

}  // namespace
