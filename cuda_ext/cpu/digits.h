// Digits of a small base in 64-bit words: the levels codec, and the words path B sums.
#pragma once

#include "core/launchers.h"

namespace {

using knet::kLevelWords;

// Horner's rule from the last digit down, kLevelWords words at a time.
inline void pack_digits(const knet::PackArgs& a, int64_t begin, int64_t end) {
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

// The same for any 64-bit x: a multiplication too small by at most one, and its correction. The
// processor's own division takes several times as long.
struct WideReciprocal {
  explicit WideReciprocal(uint64_t d) : divisor(d), factor(~uint64_t{0} / d) {}
  uint64_t divide(uint64_t x, uint64_t* remainder) const {
    uint64_t quotient = static_cast<uint64_t>(static_cast<Wide>(x) * factor >> 64);
    uint64_t rest = x - quotient * divisor;
    const uint64_t is_short = rest >= divisor ? 1 : 0;
    *remainder = rest - (is_short ? divisor : 0);
    return quotient + is_short;
  }
  __extension__ using Wide = unsigned __int128;
  uint64_t divisor;
  uint64_t factor;
};

// Division of x < 2^15 by a small number, 32 of them in one vector.
struct NarrowReciprocal {
  explicit NarrowReciprocal(uint32_t divisor) {
    int log2 = 1;
    while ((1u << log2) < divisor) ++log2;
    shift = log2 - 1;
    factor = static_cast<uint16_t>((1u << (15 + log2)) / divisor + 1);
  }
  uint16_t divide(uint16_t x) const {
    const uint16_t high = static_cast<uint16_t>(static_cast<uint32_t>(x) * factor >> 16);
    return static_cast<uint16_t>(high >> shift);
  }
  uint16_t factor;
  int shift;
};

// Cuts kLevelWords words into digits, the last ones first. Divisions grow cheaper and more
// numerous on the way: a word into limbs below 2^30, a limb into halves below 2^15, a half into
// digits. A word no encoder writes yields digits no larger than base - 1.
class DigitSplitter {
 public:
  explicit DigitSplitter(uint32_t base)
      : per_half_(digits_of_half(base)),
        half_base_(knet::power(base, per_half_)),
        limb_(uint64_t{half_base_} * half_base_),
        half_(half_base_),
        digit_(base),
        base_(static_cast<uint16_t>(base)) {}

  // Digit number `digit` of each word, less offset; to be called for 0, 1, 2, ...
  void next(int digit, uint64_t* __restrict words, int16_t offset, int16_t* __restrict values) {
    if (digit == 0)
      left_in_limb_ = left_in_half_ = 0;
    if (left_in_limb_ == 0) {
      left_in_limb_ = 2 * per_half_;
      for (int j = 0; j < kLevelWords; ++j) {
        uint64_t limb;
        words[j] = limb_.divide(words[j], &limb);
        limbs_[j] = static_cast<uint32_t>(limb);
      }
    }
    if (left_in_half_ == 0) {
      left_in_half_ = per_half_;
      for (int j = 0; j < kLevelWords; ++j) {
        const uint32_t quotient = half_.divide(limbs_[j]);
        halves_[j] = static_cast<uint16_t>(limbs_[j] - quotient * half_base_);
        limbs_[j] = quotient;
      }
    }
    --left_in_limb_;
    --left_in_half_;
    for (int j = 0; j < kLevelWords; ++j) {
      const uint16_t quotient = digit_.divide(halves_[j]);
      const uint16_t rest = static_cast<uint16_t>(halves_[j] - quotient * base_);
      values[j] = static_cast<int16_t>(rest - offset);
      halves_[j] = quotient;
    }
  }

 private:
  static int digits_of_half(uint32_t base) {
    int digits = 1;
    for (uint32_t value = base * base; value <= (1u << 15); value *= base) ++digits;
    return digits;
  }

  int per_half_;
  uint32_t half_base_;
  WideReciprocal limb_;
  Reciprocal half_;
  NarrowReciprocal digit_;
  uint16_t base_;
  int left_in_limb_ = 0;
  int left_in_half_ = 0;
  uint32_t limbs_[kLevelWords];
  uint16_t halves_[kLevelWords];
};

inline void unpack_digits(const knet::UnpackArgs& a, int64_t begin, int64_t end) {
  const int64_t block_values = static_cast<int64_t>(kLevelWords) * a.num_digits;
  DigitSplitter splitter(a.base);
  for (int64_t block = begin; block < end; ++block) {
    uint64_t words[kLevelWords];
    for (int j = 0; j < kLevelWords; ++j) words[j] = a.words[block * kLevelWords + j];
    for (int digit = 0; digit < a.num_digits; ++digit) {
      const int64_t first = block * block_values + static_cast<int64_t>(digit) * kLevelWords;
      if (first >= a.num_values)
        break;
      const int64_t left = a.num_values - first;
      if (left >= kLevelWords) {
        splitter.next(digit, words, static_cast<int16_t>(a.offset), a.values + first);
        continue;
      }
      int16_t values[kLevelWords];
      splitter.next(digit, words, static_cast<int16_t>(a.offset), values);
      for (int j = 0; j < left; ++j) a.values[first + j] = values[j];
    }
  }
}

}  // namespace
