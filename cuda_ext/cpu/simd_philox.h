// Philox on vectors of 64-bit lanes, which AVX2 and AVX-512 share.
//
// A counter lies in the low half of each lane, where the multiplier wants it; counters with even
// and odd indices go side by side. `Lanes` says how: Vector, set, add, multiply_low (of low
// halves), high_half, xor_all, even_offsets (0, 2, 4, ...) and interleave (low halves of two
// vectors).
#pragma once

#include "core/codec.h"

namespace {

template <class Lanes>
struct PhiloxCounters {
  typename Lanes::Vector c0, c1, c2, c3;

  void round(typename Lanes::Vector k0, typename Lanes::Vector k1) {
    const auto p0 = Lanes::multiply_low(c0, Lanes::set(0xD2511F53));
    const auto p1 = Lanes::multiply_low(c2, Lanes::set(0xCD9E8D57));
    c0 = Lanes::xor_all(Lanes::high_half(p1), c1, k0);
    c2 = Lanes::xor_all(Lanes::high_half(p0), c3, k1);
    c1 = p1;
    c3 = p0;
  }
};

// The four words of counters index, index + 1, ..., one counter to 32 bits.
template <class Lanes>
inline void philox_words(uint32_t index, const knet::RandomKey& key,
                         typename Lanes::Vector words[4]) {
  const auto first = Lanes::add(Lanes::set(index), Lanes::even_offsets());
  const auto c1 = Lanes::set(key.stream);
  const auto c2 = Lanes::set(static_cast<uint32_t>(key.step));
  const auto c3 = Lanes::set(static_cast<uint32_t>(key.step >> 32));
  PhiloxCounters<Lanes> even{first, c1, c2, c3};
  PhiloxCounters<Lanes> odd{Lanes::add(first, Lanes::set(1)), c1, c2, c3};
  uint32_t k0 = key.seed, k1 = key.rank;
  for (int round = 0; round < 10; ++round) {
    const auto v0 = Lanes::set(k0), v1 = Lanes::set(k1);
    even.round(v0, v1);
    odd.round(v0, v1);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = Lanes::interleave(even.c0, odd.c0);
  words[1] = Lanes::interleave(even.c1, odd.c1);
  words[2] = Lanes::interleave(even.c2, odd.c2);
  words[3] = Lanes::interleave(even.c3, odd.c3);
}

}  // namespace
