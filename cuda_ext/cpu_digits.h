// Digits of a small base in 64-bit words: the levels codec, and the words path B sums.
#pragma once

#include "kernels.h"

namespace {

using knet::kLevelWords;

// Horner's rule from the last digit down, kLevelWords words abreast.
inline void pack_digits(const knet::DigitsArgs& a, int64_t begin, int64_t end) {
  const int64_t block_values = static_cast<int64_t>(kLevelWords) * a.num_digits;
  for (int64_t block = begin; block < end; ++block) {
    uint64_t words[kLevelWords] = {};
    for (int digit = a.num_digits - 1; digit >= 0; --digit) {
      const int64_t first = block * block_values + static_cast<int64_t>(digit) * kLevelWords;
      const int64_t left = a.num_values - first;
      const int count = static_cast<int>(left < 0 ? 0 : left < kLevelWords ? left : kLevelWords);
      uint32_t digits[kLevelWords] = {};
      for (int j = 0; j < count; ++j)
        digits[j] = static_cast<uint32_t>(a.values[first + j] + a.offset);
      for (int j = 0; j < kLevelWords; ++j) words[j] = words[j] * a.base + digits[j];
    }
    for (int j = 0; j < kLevelWords; ++j) a.words[block * kLevelWords + j] = words[j];
  }
}

// Division of x < 2^31 by `divisor` as a multiplication (Granlund and Montgomery, PLDI'94).
struct Reciprocal {
  explicit Reciprocal(uint32_t divisor) {
    int log2 = 0;
    while ((1u << log2) < divisor) ++log2;
    shift = 31 + log2;
    factor = static_cast<uint32_t>((1ull << shift) / divisor + 1);
  }
  uint32_t divide(uint32_t x) const {
    return static_cast<uint32_t>(static_cast<uint64_t>(x) * factor >> shift);
  }
  uint32_t factor;
  int shift;
};

// Words are cut into limbs below 2^31 by one 64-bit division each; digits come off the limbs by
// multiplication. A word no encoder writes yields digits no larger than base - 1.
inline void unpack_digits(const knet::DigitsArgs& a, int64_t begin, int64_t end) {
  const int64_t block_values = static_cast<int64_t>(kLevelWords) * a.num_digits;
  const Reciprocal reciprocal(a.base);
  const int per_limb = knet::limb_digits(a.base);
  uint64_t limb_base = 1;
  for (int i = 0; i < per_limb; ++i) limb_base *= a.base;
  for (int64_t block = begin; block < end; ++block) {
    uint64_t words[kLevelWords];
    uint32_t limbs[kLevelWords];
    for (int j = 0; j < kLevelWords; ++j) words[j] = a.words[block * kLevelWords + j];
    for (int digit = 0; digit < a.num_digits; ++digit) {
      const int64_t first = block * block_values + static_cast<int64_t>(digit) * kLevelWords;
      if (first >= a.num_values)
        break;
      if (digit % per_limb == 0)
        for (int j = 0; j < kLevelWords; ++j) {
          const uint64_t quotient = words[j] / limb_base;
          limbs[j] = static_cast<uint32_t>(words[j] - quotient * limb_base);
          words[j] = quotient;
        }
      int16_t values[kLevelWords];
      for (int j = 0; j < kLevelWords; ++j) {
        const uint32_t quotient = reciprocal.divide(limbs[j]);
        values[j] =
            static_cast<int16_t>(static_cast<int32_t>(limbs[j] - quotient * a.base) - a.offset);
        limbs[j] = quotient;
      }
      const int64_t left = a.num_values - first;
      const int count = static_cast<int>(left < kLevelWords ? left : kLevelWords);
      for (int j = 0; j < count; ++j) a.values[first + j] = values[j];
    }
  }
}

}  // namespace
