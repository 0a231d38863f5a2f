// The CPU kernels of codes, written once over a vector unit `Simd` (simd_*.h) and compiled once for
// each.
//
// No std:: function is called here: its instantiation could be merged across instruction sets.
#pragma once

#include "cpu/values.h"

namespace {

using knet::kGroup;
using knet::WireFormat;

template <class Simd, WireFormat kFormat>
struct Codec {
  static constexpr int kPlanes = knet::num_planes(kFormat);
  static constexpr int kRadix = knet::radix(kFormat);
  static constexpr int kValues = kGroup * kPlanes;
  using Int = typename Simd::Int;
  using Float = typename Simd::Float;
  using Short = typename Simd::Short;

  // One block: values [kValues] -> payload [kBlockBytes]. Digit = code + 1, so that the bytes
  // start at the digits of an all-zero block and every value that fires adds or takes its weight.
  static void encode_block(const float* x, const float* inverse, uint32_t first_group,
                           const knet::RandomKey& key, bool stochastic, uint8_t* out) {
    constexpr auto zeros = static_cast<float>(knet::zero_byte(kFormat));
    for (int part = 0; part < knet::kLanes; part += Simd::kWidth) {
      Float sums[knet::kSlots];
      for (Float& sum : sums) sum = Simd::set_float(zeros);
      float weight = 1.0f;
      for (int plane = 0; plane < kPlanes; ++plane, weight *= kRadix) {
        const uint32_t index = (first_group + static_cast<uint32_t>(plane)) * knet::kLanes;
        Int words[4];
        if (stochastic)
          Simd::random_words(index + static_cast<uint32_t>(part), key, words);
        const Float inv = Simd::set_float(inverse[plane]);
        const float* row = x + plane * kGroup + part;
        for (int slot = 0; slot < knet::kSlots; ++slot) {
          __builtin_prefetch(row + slot * knet::kLanes + kPrefetch);
          Int random = Simd::set_int(knet::kNearestThreshold);
          if (stochastic)
            random = slot < 4 ? Simd::low16(words[slot]) : Simd::high16(words[slot - 4]);
          sums[slot] = Simd::accumulate(sums[slot], row + slot * knet::kLanes, inv, random, weight);
        }
      }
      for (int slot = 0; slot < knet::kSlots; ++slot)
        Simd::store_bytes(sums[slot], out + slot * knet::kLanes + part);
    }
  }

  // Values [kValues] of a block, each times its scale's boost; apart from encode_block, so that
  // ordinary scales cost nothing. NaN keeps its sign.
  static const float* boosted(const float* x, const float* boost, float* buffer) {
    for (int i = 0; i < kValues; ++i) buffer[i] = x[i] == x[i] ? x[i] * boost[i / kGroup] : x[i];
    return buffer;
  }

  static void encode(const knet::EncodeArgs& a, int64_t begin, int64_t end) {
    alignas(64) float buffer[kValues];
    ScaleCursor cursor(a.scales, a.scale_group_size);
    float own_inverse = 0.0f, own_boost = 1.0f;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kValues;
      const int64_t count = clamp(a.num_values - first, kValues);
      const float* x = as_floats(a.values, a.dtype, first, count, kValues, buffer);
      float boost[kPlanes] = {}, inverse[kPlanes] = {};
      bool any_small = false;
      for (int plane = 0; plane < kPlanes && first + plane * kGroup < a.num_values; ++plane) {
        if (cursor.enter(first + plane * kGroup)) {
          own_inverse = knet::inverse_scale(cursor.scale());
          own_boost = knet::boost_of(cursor.scale());
        }
        inverse[plane] = own_inverse;
        boost[plane] = own_boost;
        any_small |= own_boost > 1.0f;
      }
      if (any_small)
        x = boosted(x, boost, buffer);
      const uint32_t group = a.first_group + static_cast<uint32_t>(block * kPlanes);
      encode_block(x, inverse, group, a.key, a.stochastic, a.payload + block * knet::kBlockBytes);
    }
  }

  // Adds the digits of kShorts bytes to sums[plane].
  static void add_digits(const uint8_t* bytes, Short sums[kPlanes]) {
    Short rest = Simd::load_bytes(bytes, knet::largest_byte(kFormat));
    if (kFormat == WireFormat::kCrumb4) {
      for (int plane = 0; plane < kPlanes; ++plane)
        sums[plane] = Simd::add(sums[plane], Simd::crumb(rest, 2 * plane));
      return;
    }
    for (int plane = 0; plane < kPlanes - 1; ++plane) {
      const Short quotient = Simd::third(rest);
      const Short tripled = Simd::add(quotient, Simd::add(quotient, quotient));
      sums[plane] = Simd::add(sums[plane], Simd::sub(rest, tripled));
      rest = quotient;
    }
    sums[kPlanes - 1] = Simd::add(sums[kPlanes - 1], rest);
  }

  template <class Store>
  static void decode_block(const knet::DecodeArgs& a, int64_t block, const Store& store) {
    const Short zero = Simd::set_short(static_cast<int16_t>(-a.num_payloads));
    for (int part = 0; part < knet::kBlockBytes; part += Simd::kShorts) {
      Short sums[kPlanes];
      for (Short& sum : sums) sum = zero;
      const uint8_t* bytes = a.payloads + block * knet::kBlockBytes + part;
      for (int64_t rank = 0; rank < a.num_payloads; ++rank)
        add_digits(bytes + rank * a.row_bytes, sums);
      for (int plane = 0; plane < kPlanes; ++plane)
        store(plane, plane * kGroup + part, sums[plane]);
    }
  }

  static void decode_sums(const knet::DecodeArgs& a, int64_t block) {
    alignas(64) int16_t buffer[kValues];
    const int64_t first = block * kValues, count = clamp(a.num_values - first, kValues);
    int16_t* out = count == kValues ? a.sums + first : buffer;
    decode_block(a, block, [&](int, int at, Short sum) { Simd::store_shorts(sum, out + at); });
    if (out == buffer)
      for (int64_t i = 0; i < count; ++i) a.sums[first + i] = buffer[i];
  }

  static void decode_values(const knet::DecodeArgs& a, int64_t block) {
    alignas(64) float buffer[kValues];
    const int64_t first = block * kValues, count = clamp(a.num_values - first, kValues);
    const bool direct = count == kValues && a.dtype == DType::kFloat32;
    float* out = direct ? static_cast<float*>(a.values) + first : buffer;
    float factor[kPlanes];
    for (int plane = 0; plane < kPlanes; ++plane) {
      const int64_t value = first + plane * kGroup;
      factor[plane] = value < a.num_values
                          ? knet::decode_factor(a.scales[value / a.scale_group_size], a.divisor)
                          : 0;
    }
    decode_block(a, block, [&](int plane, int at, Short sum) {
      Simd::store_scaled(sum, factor[plane], out + at);
    });
    if (!direct)
      store_floats(buffer, a.values, a.dtype, first, count);
  }

  static void decode(const knet::DecodeArgs& a, int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      a.sums != nullptr ? decode_sums(a, block) : decode_values(a, block);
  }
};

template <class Simd>
void encode(const knet::EncodeArgs& a, int64_t begin, int64_t end) {
  knet::with_format(
      a.format, [&](auto format) { Codec<Simd, decltype(format)::value>::encode(a, begin, end); });
}

template <class Simd>
void decode(const knet::DecodeArgs& a, int64_t begin, int64_t end) {
  knet::with_format(
      a.format, [&](auto format) { Codec<Simd, decltype(format)::value>::decode(a, begin, end); });
}

template <class Simd>
void dequantize(const knet::DequantizeArgs& a, int64_t begin, int64_t end) {
  alignas(64) float buffer[kGroup];
  for (int64_t group = begin; group < end; ++group) {
    const int64_t first = group * kGroup, count = clamp(a.num_values - first, kGroup);
    const float factor = knet::decode_factor(a.scales[first / a.scale_group_size], a.divisor);
    if (count < kGroup) {
      for (int64_t i = 0; i < count; ++i) buffer[i] = knet::decode_value(a.sums[first + i], factor);
      store_floats(buffer, a.values, a.dtype, first, count);
      continue;
    }
    const bool direct = a.dtype == DType::kFloat32;
    float* out = direct ? static_cast<float*>(a.values) + first : buffer;
    for (int at = 0; at < kGroup; at += Simd::kShorts)
      Simd::store_scaled(Simd::load_shorts(a.sums + first + at), factor, out + at);
    if (!direct)
      store_floats(buffer, a.values, a.dtype, first, count);
  }
}

}  // namespace
