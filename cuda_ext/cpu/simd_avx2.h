// AVX2 with FMA: 8 lanes of 32 bits. See simd_portable.h for what each function does.
#pragma once

#include <immintrin.h>

#include "core/codec.h"
#include "cpu/simd_philox.h"

namespace {

// For simd_philox.h.
struct Lanes256 {
  using Vector = __m256i;
  static Vector set(uint32_t value) { return _mm256_set1_epi64x(value); }
  static Vector add(Vector a, Vector b) { return _mm256_add_epi64(a, b); }
  static Vector multiply_low(Vector a, Vector b) { return _mm256_mul_epu32(a, b); }
  static Vector high_half(Vector x) { return _mm256_srli_epi64(x, 32); }
  static Vector xor_all(Vector a, Vector b, Vector c) {
    return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
  }
  static Vector even_offsets() { return _mm256_setr_epi64x(0, 2, 4, 6); }
  static Vector interleave(Vector even, Vector odd) {
    return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
  }
};

struct Avx2 {
  static constexpr const char* kName = "avx2";
  static constexpr int kWidth = 8;
  using Int = __m256i;
  using Float = __m256;

  static void random_words(uint32_t index, const knet::RandomKey& key, Int words[4]) {
    philox_words<Lanes256>(index, key, words);
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
