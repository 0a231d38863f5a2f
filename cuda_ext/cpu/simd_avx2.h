// AVX2 with FMA: 8 lanes of 32 bits. See simd_portable.h for what each function does.
#pragma once

#include <immintrin.h>

#include "core/codec.h"

namespace {

struct Avx2 {
  static constexpr const char* kName = "avx2";
  static constexpr int kWidth = 8;
  using Int = __m256i;
  using Float = __m256;

  // Four counters to a vector, in the low half of each 64-bit lane, where the multiplier wants
  // them.
  struct Counters {
    __m256i c0, c1, c2, c3;
  };

  static void philox_round(Counters& c, __m256i k0, __m256i k1) {
    const __m256i p0 = _mm256_mul_epu32(c.c0, _mm256_set1_epi64x(0xD2511F53));
    const __m256i p1 = _mm256_mul_epu32(c.c2, _mm256_set1_epi64x(0xCD9E8D57));
    c.c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), c.c1), k0);
    c.c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), c.c3), k1);
    c.c1 = p1;
    c.c3 = p0;
  }

  static __m256i interleave(__m256i even, __m256i odd) {
    return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
  }

  static void random_words(uint32_t index, const knet::RandomKey& key, Int words[4]) {
    const __m256i first =
        _mm256_add_epi64(_mm256_set1_epi64x(index), _mm256_setr_epi64x(0, 2, 4, 6));
    const __m256i c1 = _mm256_set1_epi64x(key.stream);
    const __m256i c2 = _mm256_set1_epi64x(static_cast<uint32_t>(key.step));
    const __m256i c3 = _mm256_set1_epi64x(static_cast<uint32_t>(key.step >> 32));
    Counters even{first, c1, c2, c3};
    Counters odd{_mm256_add_epi64(first, _mm256_set1_epi64x(1)), c1, c2, c3};
    uint32_t k0 = key.seed, k1 = key.rank;
    for (int round = 0; round < 10; ++round) {
      const __m256i v0 = _mm256_set1_epi64x(k0), v1 = _mm256_set1_epi64x(k1);
      philox_round(even, v0, v1);
      philox_round(odd, v0, v1);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    words[0] = interleave(even.c0, odd.c0);
    words[1] = interleave(even.c1, odd.c1);
    words[2] = interleave(even.c2, odd.c2);
    words[3] = interleave(even.c3, odd.c3);
  }

  static Int low16(Int words) { return _mm256_and_si256(words, _mm256_set1_epi32(0xFFFF)); }
  static Int high16(Int words) { return _mm256_srli_epi32(words, 16); }
  static Int set_int(int32_t value) { return _mm256_set1_epi32(value); }
  static Float set_float(float value) { return _mm256_set1_ps(value); }

  // min_ps returns its second operand for NaN, as knet::threshold does.
  static Float accumulate(Float sum, const float* x, Float inverse, Int random, float weight) {
    const Float sign_bit = _mm256_castsi256_ps(_mm256_set1_epi32(INT32_MIN));
    const Float value = _mm256_loadu_ps(x);
    const Float scaled = _mm256_mul_ps(_mm256_andnot_ps(sign_bit, value), inverse);
    const Float capped = _mm256_min_ps(scaled, _mm256_set1_ps(knet::kRandomRange));
    const Float fires = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_cvtps_epi32(capped), random));
    const Float signed_weight =
        _mm256_or_ps(_mm256_and_ps(value, sign_bit), _mm256_set1_ps(weight));
    return _mm256_add_ps(sum, _mm256_and_ps(fires, signed_weight));
  }

  static void store_bytes(Float sum, uint8_t* out) {
    const __m256i ints = _mm256_cvtps_epi32(sum);
    const __m128i shorts =
        _mm_packus_epi32(_mm256_castsi256_si128(ints), _mm256_extracti128_si256(ints, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(shorts, shorts));
  }

  static constexpr int kShorts = 16;
  using Short = __m256i;

  static Short set_short(int16_t value) { return _mm256_set1_epi16(value); }
  static Short load_bytes(const uint8_t* in, int max) {
    const __m256i wide =
        _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
    return _mm256_min_epu16(wide, _mm256_set1_epi16(static_cast<int16_t>(max)));
  }
  static Short third(Short x) { return _mm256_mulhi_epu16(x, _mm256_set1_epi16(21846)); }
  static Short add(Short a, Short b) { return _mm256_add_epi16(a, b); }
  static Short sub(Short a, Short b) { return _mm256_sub_epi16(a, b); }
  static Short crumb(Short x, int shift) {
    const __m256i digit =
        _mm256_and_si256(_mm256_srl_epi16(x, _mm_cvtsi32_si128(shift)), _mm256_set1_epi16(3));
    return _mm256_min_epu16(digit, _mm256_set1_epi16(2));
  }
  static void store_shorts(Short x, int16_t* out) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), x);
  }
  static Short load_shorts(const int16_t* in) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in));
  }
  static void store_scaled(Short x, float factor, float* out) {
    const __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(x));
    const __m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(x, 1));
    const __m256 scale = _mm256_set1_ps(factor);
    _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_cvtepi32_ps(low), scale));
    _mm256_storeu_ps(out + 8, _mm256_mul_ps(_mm256_cvtepi32_ps(high), scale));
  }

  struct Moments {
    __m256d sum[8], square[8];
  };
  static void clear(Moments& m) {
    for (int i = 0; i < 8; ++i) m.sum[i] = m.square[i] = _mm256_setzero_pd();
  }
  static void add_row(Moments& m, const float* x) {
    for (int i = 0; i < 8; ++i) {
      const __m256d value = _mm256_cvtps_pd(_mm_loadu_ps(x + 4 * i));
      m.sum[i] = _mm256_add_pd(m.sum[i], value);
      m.square[i] = _mm256_fmadd_pd(value, value, m.square[i]);
    }
  }
  static void store(const Moments& m, double* sum, double* square) {
    for (int i = 0; i < 8; ++i) {
      _mm256_storeu_pd(sum + 4 * i, m.sum[i]);
      _mm256_storeu_pd(square + 4 * i, m.square[i]);
    }
  }
};

}  // namespace
