// Sums of the digits of payload bytes, for each wire format.
#pragma once

#include "cuda/common.cuh"

namespace {

// Digits of bytes summed over payloads, two bytes to a register: one in each 16 bits.
template <WireFormat kFormat>
struct DigitSums;

// Digit p is floor(x / 3^p) - 3 floor(x / 3^(p + 1)), so summing the quotients suffices. Each
// product below 2^16 gives the quotient of every x < 243. A low half that overflows carries into
// the high half, and digit() takes that back: its result is the same combination of both halves
// modulo 2^32.
template <>
struct DigitSums<WireFormat::kTrit5> {
  uint32_t quotients[5] = {};
  // Bytes above 242 become 242; only those set the top bit of `above`.
  static KNET_DEVICE uint32_t valid(uint32_t bytes) {
    const uint32_t above = bytes & ((bytes & 0x7F7F7F7Fu) + 0x0D0D0D0Du) & 0x80808080u;
    const uint32_t mask = (above >> 7) * 0xFFu;
    return (bytes & ~mask) | (0xF2F2F2F2u & mask);
  }
  KNET_DEVICE void add(uint32_t x) {
    quotients[0] += x;
    quotients[1] += x * 171u >> 9 & 0x007F007Fu;
    quotients[2] += x * 57u >> 9 & 0x007F007Fu;
    quotients[3] += x * 19u >> 9 & 0x007F007Fu;
    quotients[4] += x * 203u >> 14 & 0x00030003u;
  }
  KNET_DEVICE uint32_t digit(int plane) const {
    return quotients[plane] - (plane < 4 ? 3u * quotients[plane + 1] : 0u);
  }
};

template <>
struct DigitSums<WireFormat::kCrumb4> {
  uint32_t digits[4] = {};
  // A digit 3 loses its low bit.
  static KNET_DEVICE uint32_t valid(uint32_t bytes) { return bytes & ~(bytes >> 1 & 0x55555555u); }
  KNET_DEVICE void add(uint32_t x) {
#pragma unroll
    for (int plane = 0; plane < 4; ++plane) digits[plane] += x >> (2 * plane) & 0x00030003u;
  }
  KNET_DEVICE uint32_t digit(int plane) const { return digits[plane]; }
};

}  // namespace
