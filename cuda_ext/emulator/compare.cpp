// Compares the emulated CUDA kernels with the portable CPU kernels, bit for bit, in random rounds:
//
//   compare ROUNDS SEED MAX_VALUES
//
// Both write to buffers that differ in nothing but who fills them, guards and alignment included.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "emulator/buffers.h"
#include "emulator/rounds.h"

namespace {

template <class Args>
void run_all(const std::vector<Args>& cpu, const std::vector<Args>& gpu,
             void (*kernel)(const Args&, int64_t, int64_t), int64_t (*count)(const Args&),
             const char* (*launch)(const Args*, int64_t, void*)) {
  for (const Args& args : cpu) kernel(args, 0, count(args));
  expect_launched(launch(gpu.data(), static_cast<int64_t>(gpu.size()), nullptr));
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

// Scales of every kind: of the tensors, or zero, tiny, infinite and NaN.
Buffer<float> random_scales(const Round& round) {
  Buffer<float> scales(round.num_scales, draw(0, 3));
  const float kinds[] = {0.0f, 1e-45f, 1e-39f, 1e-30f, 1e-3f, 1.0f, 3e38f, INFINITY, NAN};
  for (int64_t i = 0; i < round.num_scales; ++i)
    scales.get()[i] = draw(0, 2) == 0 ? kinds[draw(0, 8)] : std::ldexp(1.5f, int(draw(-5, 3)));
  return scales;
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

// The outputs of a decoder, one for each tensor.
std::vector<Pair<void*>> outputs(const Round& round) {
  std::vector<Pair<void*>> outs;
  for (const Tensor& t : round.tensors)
    outs.emplace_back(t.num_values, draw(0, 8), bytes_of(t.dtype));
  return outs;
}

void compare_decode(const Round& round) {
  const int64_t num_payloads = draw(1, 5);
  const int64_t row_bytes = round.num_blocks * kBlockBytes + draw(0, 2) * draw(0, 40);
  const Buffer<uint8_t> payloads(num_payloads * row_bytes, draw(0, 9));
  payloads.fill_random();
  const Buffer<float> scales = random_scales(round);
  const auto outs = outputs(round);
  Pair<int16_t> sums(round.num_blocks * block_values(round.format), draw(0, 8));
  DecodeArgs args{};
  args.num_payloads = num_payloads;
  args.row_bytes = row_bytes;
  args.format = round.format;
  args.scale_group_size = round.scale_group_size;
  args.divisor = static_cast<int32_t>(draw(1, 9));
  std::vector<DecodeArgs> cpu, gpu;
  std::vector<DequantizeArgs> cpu_sums, gpu_sums;
  DecodeArgs whole = args;  // sums of all tensors
  whole.payloads = payloads.get();
  whole.num_values = round.num_blocks * block_values(round.format);
  int64_t scale = 0, block = 0;
  for (size_t i = 0; i < outs.size(); ++i) {
    const Tensor& t = round.tensors[i];
    args.payloads = payloads.get() + block * kBlockBytes;
    args.num_values = t.num_values;
    args.dtype = t.dtype;
    args.scales = scales.get() + scale;
    for (auto* side : {&cpu, &gpu}) {
      side->push_back(args);
      side->back().values = (side == &cpu ? outs[i].cpu : outs[i].gpu).bytes();
    }
    for (auto* side : {&cpu_sums, &gpu_sums})
      side->push_back({sums.cpu.get() + block * block_values(round.format), t.num_values,
                       args.scales, args.scale_group_size, args.divisor,
                       (side == &cpu_sums ? outs[i].cpu : outs[i].gpu).bytes(), t.dtype});
    scale += round.scales_of(t);
    block += round.blocks_of(t);
  }
  const auto count = [](const DecodeArgs& a) {
    return ceil_div(a.num_values, block_values(a.format));
  };
  run_all<DecodeArgs>(cpu, gpu, portable_kernels().decode, count, decode_cuda);
  for (const auto& out : outs) expect_same(out, "decoded gradient");
  std::vector<DecodeArgs> cpu_whole{whole}, gpu_whole{whole};
  cpu_whole[0].sums = sums.cpu.get();
  gpu_whole[0].sums = sums.gpu.get();
  run_all<DecodeArgs>(cpu_whole, gpu_whole, portable_kernels().decode, count, decode_cuda);
  expect_same(sums, "sums of codes");
  for (const auto& out : outs)
    for (const auto* side : {&out.cpu, &out.gpu}) side->fill_random();
  run_all<DequantizeArgs>(
      cpu_sums, gpu_sums, portable_kernels().dequantize,
      [](const DequantizeArgs& a) { return ceil_div(a.num_values, kGroup); }, dequantize_cuda);
  for (const auto& out : outs) expect_same(out, "dequantized gradient");
}

void compare_digits(int64_t max_values) {
  const auto base = static_cast<uint32_t>(draw(0, 1) == 0 ? draw(2, 20) : draw(2, 1025));
  int32_t most = 0;
  for (double bits = 0.0; bits + std::log2(base) <= 64.0; bits += std::log2(base)) ++most;
  const Digits digits{draw(0, max_values), base, static_cast<int32_t>(draw(0, base - 1)),
                      static_cast<int32_t>(draw(1, most))};
  const int64_t block = int64_t{kLevelWords} * digits.num_digits;
  const int64_t num_blocks = ceil_div(digits.num_values, block);
  const Buffer<int16_t> values(digits.num_values, draw(0, 8));
  for (int64_t i = 0; i < digits.num_values; ++i)
    values.get()[i] = static_cast<int16_t>(draw(0, base - 1) - digits.offset);
  Pair<uint64_t> words(num_blocks * kLevelWords, draw(0, 3));
  Pair<int16_t> back(digits.num_values, draw(0, 8));
  portable_kernels().pack_digits({digits, values.get(), words.cpu.get()}, 0, num_blocks);
  expect_launched(pack_digits_cuda({digits, values.get(), words.gpu.get()}, nullptr));
  expect_same(words, "packed words");
  for (const auto* side : {&words.cpu, &words.gpu})
    if (draw(0, 1) == 0)
      side->fill_random();
  portable_kernels().unpack_digits({digits, words.cpu.get(), back.cpu.get()}, 0, num_blocks);
  expect_launched(unpack_digits_cuda({digits, words.cpu.get(), back.gpu.get()}, nullptr));
  expect_same(back, "unpacked digits");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: compare ROUNDS SEED MAX_VALUES\n");
    return 2;
  }
  const int64_t rounds = std::atoll(argv[1]), max_values = std::atoll(argv[3]);
  generator.seed(static_cast<uint64_t>(std::atoll(argv[2])));
  for (int64_t i = 0; i < rounds; ++i) {
    const Round round(max_values);
    compare_statistics(round, true);
    compare_statistics(round, false);
    compare_max_abs(round);
    compare_encode(round);
    compare_decode(round);
    compare_digits(max_values);
  }
  std::printf("compare: %lld rounds of every op agree with the CPU's bits\n",
              static_cast<long long>(rounds));
  return 0;
}
