// Compares what makes gradients of codes again, and what packs digits.
#pragma once
#include <cmath>
#include <vector>

#include "emulator/compare_encoders.h"

namespace {

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
