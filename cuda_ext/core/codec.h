// The arithmetic of the codec, one value at a time, for the host and for CUDA.
//
// Every kernel (AVX-512, AVX2, portable, CUDA, PyTorch) computes exactly these functions,
// bit for bit. The file format and the random numbers are fixed here; kernels only differ
// in how many values they treat at once.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/floats.h"

namespace knet {

// A group is what one set of random numbers covers: 16 Philox counters times 8 values.
constexpr int kGroup = 128;
constexpr int kLanes = 16;  // counters in a group
constexpr int kSlots = 8;   // 16-bit random numbers drawn from one counter

// A block is the smallest unit of a payload: kBlockBytes bytes, one plane of kGroup values
// for each digit of a byte. Byte j holds values j, j + 128, j + 256, ... of its block.
constexpr int kBlockBytes = kGroup;

// Statistics: a chunk is summed in 32 lanes, chunks in 1024 lanes, each then by halving.
constexpr int kStatLanes = 32;
constexpr int kStatChunk = 4096;
constexpr int kFinalLanes = 1024;

// Levels: a block is kLevelWords words; word j holds values j, j + 32, j + 64, ...
constexpr int kLevelWords = 32;

constexpr float kRandomRange = 65536.0f;  // 2^16 thresholds

// The reciprocal of a scale below 2^-100 would leave the range of fp32, so such a scale and its
// values are first multiplied by 2^100, which is exact.
constexpr float kSmallScale = 7.888609052210118e-31f;  // 2^-100
constexpr float kBoost = 1.2676506002282294e+30f;      // 2^100

// The largest scale of finite values. It clips none of fp32, and no multiple of it that N ranks'
// codes decode to rounds to infinity.
constexpr float kMaxScale = 3.4028232635611926e+38f;  // fp32's last value but one

enum class WireFormat : int { kTrit5 = 0, kCrumb4 = 1 };
enum class ScaleRule : int { kRms = 0, kStd = 1, kMax = 2 };

KNET_HD constexpr int num_planes(WireFormat f) { return f == WireFormat::kTrit5 ? 5 : 4; }
KNET_HD constexpr int radix(WireFormat f) { return f == WireFormat::kTrit5 ? 3 : 4; }

KNET_HD constexpr uint32_t power(uint32_t base, int exponent) {
  uint32_t value = 1;
  for (int i = 0; i < exponent; ++i) value *= base;
  return value;
}
KNET_HD constexpr uint32_t largest_byte(WireFormat f) {
  return power(static_cast<uint32_t>(radix(f)), num_planes(f)) - 1;
}
// The byte of zero codes: every digit is 1.
KNET_HD constexpr uint32_t zero_byte(WireFormat f) {
  return largest_byte(f) / (static_cast<uint32_t>(radix(f)) - 1);
}

// Calls visit(integral constant of the format): every format that kernels are compiled for.
template <class Visit>
inline auto with_format(WireFormat format, const Visit& visit) {
  if (format == WireFormat::kCrumb4)
    return visit(std::integral_constant<WireFormat, WireFormat::kCrumb4>());
  return visit(std::integral_constant<WireFormat, WireFormat::kTrit5>());
}

KNET_HD constexpr int64_t block_values(WireFormat f) { return kGroup * num_planes(f); }
KNET_HD constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What identifies a stream of random numbers; see philox4x32.
struct RandomKey {
  uint32_t seed, rank, stream;
  uint64_t step;
};

// Philox4x32-10 (Salmon et al., SC'11): key = (seed, rank),
// counter = (index, stream, low step, high step).
KNET_HD void philox4x32(uint32_t index, const RandomKey& key, uint32_t out[4]) {
  uint32_t c0 = index, c1 = key.stream;
  uint32_t c2 = static_cast<uint32_t>(key.step), c3 = static_cast<uint32_t>(key.step >> 32);
  uint32_t k0 = key.seed, k1 = key.rank;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(c0) * 0xD2511F53u;
    const uint64_t p1 = static_cast<uint64_t>(c2) * 0xCD9E8D57u;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

// The 16 random bits of slot `slot` (0..7) from the four words of its counter.
KNET_HD int32_t random16(const uint32_t words[4], int slot) {
  const uint32_t word = words[slot & 3];
  return static_cast<int32_t>(slot < 4 ? word & 0xFFFFu : word >> 16);
}

// Without random numbers every value is compared with this: fires from half the scale on.
constexpr int32_t kNearestThreshold = 32767;

// What values are multiplied by before inverse_scale: 1 but for small scales.
KNET_HD float boost_of(float scale) { return scale > 0.0f && scale < kSmallScale ? kBoost : 1.0f; }

// 65536 / (scale * boost), or 0 where the scale is zero, infinite or NaN (all codes are then 0).
KNET_HD float inverse_scale(float scale) {
  const bool is_usable = scale > 0.0f && scale <= 3.402823466e+38f;
  return is_usable ? kRandomRange / (scale * boost_of(scale)) : 0.0f;
}

KNET_HD double square_root(double x) {
#if defined(__CUDA_ARCH__)
  return __dsqrt_rn(x);
#else
  return __builtin_sqrt(x);
#endif
}

// The scale of `count` values with this sum and sum of squares (kRms, kStd); +inf where one of them
// is not finite, so that a maximum over ranks keeps it (NaN is lost in an MPI maximum).
KNET_HD float scale_of(double sum, double square, int64_t count, ScaleRule rule,
                       double clip_factor) {
  const double num_values = static_cast<double>(count > 0 ? count : 1);
  double mean_square = square / num_values;
  if (rule == ScaleRule::kStd) {
    const double mean = sum / num_values;
    mean_square -= mean * mean;
    mean_square = mean_square < 0.0 ? 0.0 : mean_square;  // NaN stays
  }
  const double scale = square_root(mean_square) * clip_factor;
  if (scale < static_cast<double>(kMaxScale))
    return static_cast<float>(scale);
  return scale <= 1.7976931348623157e+308 ? kMaxScale : bits_to_float(kInfinityBits);
}

// round_half_even(min(|x| * boost * inverse, 65536)). Adding 2^23 rounds a value in that range to
// an integer in its low mantissa bits; the comparison, as written, sends NaN to 65536.
KNET_HD int32_t threshold(float x, float inverse, float boost) {
  const float scaled = bits_to_float(float_to_bits(x) & 0x7FFFFFFFu) * boost * inverse;
  const float capped = scaled < kRandomRange ? scaled : kRandomRange;
  return static_cast<int32_t>(float_to_bits(capped + 8388608.0f) - 0x4B000000u);
}

// The ternary code of x: its sign with probability threshold / 65536, else 0.
KNET_HD int32_t ternarize(float x, float inverse, int32_t random, float boost = 1.0f) {
  const int32_t fires = random < threshold(x, inverse, boost);
  return float_to_bits(x) >> 31 ? -fires : fires;
}

// Digit p of a payload byte as a code. A byte no encoder writes reads as +1 where it overflows.
KNET_HD int32_t code_of_byte(uint32_t byte, int plane, WireFormat format) {
  if (format == WireFormat::kCrumb4) {
    const uint32_t digit = (byte >> (2 * plane)) & 3u;
    return static_cast<int32_t>(digit < 2u ? digit : 2u) - 1;
  }
  uint32_t rest = byte < largest_byte(format) ? byte : largest_byte(format);
  for (int p = 0; p < plane; ++p) rest /= 3u;
  return static_cast<int32_t>(rest % 3u) - 1;
}

// The fp32 value of a sum of codes; a scale that is not finite makes it NaN.
KNET_HD float decode_factor(float scale, int32_t divisor) {
  if ((float_to_bits(scale) & 0x7FFFFFFFu) >= kInfinityBits)  // infinite, or NaN above it
    return bits_to_float(0x7FC00000u);
  return scale > 0.0f ? scale / static_cast<float>(divisor) : 0.0f;
}

KNET_HD float decode_value(int32_t sum, float factor) {
  return factor == factor ? static_cast<float>(sum) * factor : factor;
}

// Digits of a word are cut off in limbs below 2^31, which 32-bit arithmetic can divide.
KNET_HD int limb_digits(uint32_t base) {
  int digits = 0;
  for (uint64_t power = base; power < (1ull << 31); power *= base) ++digits;
  return digits;
}

}  // namespace knet
