// The CPU kernels of statistics and largest values, over a vector unit `Simd` (simd_*.h).
//
// No std:: function is called here: see kernels.h.
#pragma once

#include "cpu/values.h"

namespace {

using knet::ceil_div;
using knet::kGroup;

template <class Simd>
void statistics(const knet::StatisticsArgs& a, int64_t begin, int64_t end) {
  using knet::kStatChunk;
  using knet::kStatLanes;
  alignas(64) float buffer[kStatChunk];
  double sum[kStatLanes], square[kStatLanes];
  const int64_t per_scale = knet::chunks_per_scale(a.num_values, a.scale_group_size);
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t scale_group = chunk / per_scale;
    const int64_t offset = chunk % per_scale * kStatChunk;
    const int64_t first = scale_group * a.scale_group_size + offset;
    const int64_t in_scale_group = clamp(a.scale_group_size - offset, kStatChunk);
    const int64_t count = clamp(a.num_values - first, in_scale_group);
    const int64_t padded = ceil_div(count, kStatLanes) * kStatLanes;
    const float* x = as_floats(a.values, a.dtype, first, count, padded, buffer);
    typename Simd::Moments moments;
    Simd::clear(moments);
    for (int64_t i = 0; i < padded; i += kStatLanes) {
      __builtin_prefetch(x + i + kPrefetch);
      __builtin_prefetch(x + i + kPrefetch + 16);
      Simd::add_row(moments, x + i);
    }
    Simd::store(moments, sum, square);
    for (int width = kStatLanes / 2; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) {
        sum[i] += sum[i + width];
        square[i] += square[i + width];
      }
    a.partial[2 * chunk] = sum[0];
    a.partial[2 * chunk + 1] = square[0];
  }
}

// The largest absolute value by its bits, which order as the values do; NaN becomes infinity.
template <class Simd>
void max_abs(const knet::MaxAbsArgs& a, int64_t begin, int64_t end) {
  alignas(64) float buffer[kGroup];
  for (int64_t scale_group = begin; scale_group < end; ++scale_group) {
    const int64_t first = scale_group * a.scale_group_size;
    const int64_t last = first + clamp(a.num_values - first, a.scale_group_size);
    int32_t lane[16] = {};
    for (int64_t at = first; at < last; at += kGroup) {
      const float* x = as_floats(a.values, a.dtype, at, clamp(last - at, kGroup), kGroup, buffer);
      for (int i = 0; i < kGroup; i += 16)
        for (int j = 0; j < 16; ++j) {
          const int32_t bits = static_cast<int32_t>(knet::float_to_bits(x[i + j]) & 0x7FFFFFFFu);
          lane[j] = lane[j] > bits ? lane[j] : bits;
        }
    }
    for (int j = 1; j < 16; ++j) lane[0] = lane[0] > lane[j] ? lane[0] : lane[j];
    const auto largest = static_cast<uint32_t>(lane[0]);
    a.scales[scale_group] =
        knet::bits_to_float(largest < knet::kInfinityBits ? largest : knet::kInfinityBits);
  }
}

}  // namespace
