// Compares what makes codes of gradients: statistics, scales, largest values and payloads.
#pragma once
#include <cmath>
#include <cstring>
#include <vector>

#include "emulator/rounds.h"

namespace {

template <class Args>
void run_all(const std::vector<Args>& cpu, const std::vector<Args>& gpu,
             void (*kernel)(const Args&, int64_t, int64_t), int64_t (*count)(const Args&),
             const char* (*launch)(const Args*, int64_t, void*)) {
  for (const Args& args : cpu) kernel(args, 0, count(args));
  expect_launched(launch(gpu.data(), static_cast<int64_t>(gpu.size()), nullptr));
}

// Scales of every kind: of the tensors, or zero, tiny, infinite and NaN.
Buffer<float> random_scales(const Round& round) {
  Buffer<float> scales(round.num_scales, draw(0, 3));
  const float kinds[] = {0.0f, 1e-45f, 1e-39f, 1e-30f, 1e-3f, 1.0f, 3e38f, INFINITY, NAN};
  for (int64_t i = 0; i < round.num_scales; ++i)
    scales.get()[i] = draw(0, 2) == 0 ? kinds[draw(0, 8)] : std::ldexp(1.5f, int(draw(-5, 3)));
  return scales;
}

void compare_statistics(const Round& round, bool moments) {
  Pair<double> partial(2 * round.num_chunks, 0), sums(2 * round.num_scales, 0);
  Pair<float> scales(round.num_scales, draw(0, 3));
  const auto rule = static_cast<ScaleRule>(draw(0, 1));
  std::vector<StatisticsArgs> cpu, gpu;
  int64_t chunk = 0, scale = 0;
  for (const Tensor& t : round.tensors) {
    const auto args = [&](const Buffer<double>& p, const Buffer<double>& m,
                          const Buffer<float>& s) {
      return StatisticsArgs{t.values.bytes(),
                            t.dtype,
                            t.num_values,
                            round.scale_group_size,
                            p.get() + 2 * chunk,
                            moments ? m.get() + 2 * scale : nullptr,
                            moments ? nullptr : s.get() + scale,
                            rule,
                            2.5};
    };
    cpu.push_back(args(partial.cpu, sums.cpu, scales.cpu));
    gpu.push_back(args(partial.gpu, sums.gpu, scales.gpu));
    chunk += round.scales_of(t) * round.chunks_of(t);
    scale += round.scales_of(t);
  }
  run_all<StatisticsArgs>(
      cpu, gpu, portable_kernels().statistics,
      [](const StatisticsArgs& a) {
        return count_scale_groups(a.num_values, a.scale_group_size) *
               chunks_per_scale(a.num_values, a.scale_group_size);
      },
      statistics_cuda);
  for (const StatisticsArgs& a : cpu)
    for (int64_t i = 0; i < count_scale_groups(a.num_values, a.scale_group_size); ++i)
      final_statistics(a, i);
  for (const auto* pair : {&partial, &sums})  // a NaN of any sign is NaN
    for (const auto* side : {&pair->cpu, &pair->gpu})
      for (int64_t i = 0; i < side->num_bytes() / 8; ++i)
        if (side->get()[i] != side->get()[i])
          side->get()[i] = 0.0 / 1.0;
  expect_same(partial, "sums of chunks");
  expect_same(sums, "statistics");
  expect_same(scales, "scales");
}

void compare_max_abs(const Round& round) {
  Pair<float> largest(round.num_scales, draw(0, 3));
  memset(largest.gpu.bytes(), 0, static_cast<size_t>(largest.gpu.num_bytes()));
  std::vector<MaxAbsArgs> cpu, gpu;
  int64_t scale = 0;
  for (const Tensor& t : round.tensors) {
    const MaxAbsArgs args{t.values.bytes(), t.dtype, t.num_values, round.scale_group_size, nullptr};
    cpu.push_back(args);
    gpu.push_back(args);
    cpu.back().scales = largest.cpu.get() + scale;
    gpu.back().scales = largest.gpu.get() + scale;
    scale += round.scales_of(t);
  }
  run_all<MaxAbsArgs>(
      cpu, gpu, portable_kernels().max_abs,
      [](const MaxAbsArgs& a) { return count_scale_groups(a.num_values, a.scale_group_size); },
      max_abs_cuda);
  expect_same(largest, "largest values");
}

void compare_encode(const Round& round) {
  const Buffer<float> scales = random_scales(round);
  Pair<uint8_t> payload(round.num_blocks * kBlockBytes, draw(0, 5));
  EncodeArgs args{};
  args.scale_group_size = round.scale_group_size;
  args.format = round.format;
  args.key = {uint32_t(generator()), uint32_t(generator()), 0, generator()};
  args.stochastic = draw(0, 3) > 0;
  std::vector<EncodeArgs> cpu, gpu;
  int64_t scale = 0, block = 0;
  for (const Tensor& t : round.tensors) {
    args.values = t.values.bytes();
    args.dtype = t.dtype;
    args.num_values = t.num_values;
    args.scales = scales.get() + scale;
    args.key.stream = uint32_t(generator());
    args.first_group = uint32_t(draw(0, 1 << 20));
    cpu.push_back(args);
    gpu.push_back(args);
    cpu.back().payload = payload.cpu.get() + block * kBlockBytes;
    gpu.back().payload = payload.gpu.get() + block * kBlockBytes;
    scale += round.scales_of(t);
    block += round.blocks_of(t);
  }
  run_all<EncodeArgs>(
      cpu, gpu, portable_kernels().encode,
      [](const EncodeArgs& a) { return ceil_div(a.num_values, block_values(a.format)); },
      encode_cuda);
  expect_same(payload, "payload");
}

}  // namespace
