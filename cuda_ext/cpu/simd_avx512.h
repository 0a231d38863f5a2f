// AVX-512 (F, BW, DQ, VL): 16 lanes of 32 bits. See simd_portable.h for what each function does.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own intrinsics warn where they are inlined (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include "core/codec.h"
#include "cpu/simd_philox.h"

namespace {

// For simd_philox.h.
struct Lanes512 {
  using Vector = __m512i;
  static Vector set(uint32_t value) { return _mm512_set1_epi64(value); }
  static Vector add(Vector a, Vector b) { return _mm512_add_epi64(a, b); }
  static Vector multiply_low(Vector a, Vector b) { return _mm512_mul_epu32(a, b); }
  static Vector high_half(Vector x) { return _mm512_srli_epi64(x, 32); }
  static Vector xor_all(Vector a, Vector b, Vector c) {
    return _mm512_ternarylogic_epi64(a, b, c, 0x96);
  }
  static Vector even_offsets() { return _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14); }
  static Vector interleave(Vector even, Vector odd) {
    return _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
  }
};

struct Avx512 {
  static constexpr const char* kName = "avx512";
  static constexpr int kWidth = 16;
  using Int = __m512i;
  using Float = __m512;

  static void random_words(uint32_t index, const knet::RandomKey& key, Int words[4]) {
    philox_words<Lanes512>(index, key, words);
  }

  static Int low16(Int words) { return _mm512_and_si512(words, _mm512_set1_epi32(0xFFFF)); }
  static Int high16(Int words) { return _mm512_srli_epi32(words, 16); }
  static Int set_int(int32_t value) { return _mm512_set1_epi32(value); }
  static Float set_float(float value) { return _mm512_set1_ps(value); }

  // min_ps returns its second operand for NaN, as knet::threshold does.
  static Float accumulate(Float sum, const float* x, Float inverse, Int random, float weight) {
    const Float value = _mm512_loadu_ps(x);
    const Float scaled = _mm512_mul_ps(_mm512_abs_ps(value), inverse);
    const Float capped = _mm512_min_ps(scaled, _mm512_set1_ps(knet::kRandomRange));
    const __mmask16 fires = _mm512_cmpgt_epi32_mask(_mm512_cvtps_epi32(capped), random);
    const Float signed_weight = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(  // copysign
        _mm512_castps_si512(value), _mm512_set1_epi32(INT32_MIN),
        _mm512_castps_si512(_mm512_set1_ps(weight)), 0xEA));
    return _mm512_mask_add_ps(sum, fires, sum, signed_weight);
  }

  static void store_bytes(Float sum, uint8_t* out) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(sum)));
  }

  static constexpr int kShorts = 32;
  using Short = __m512i;

  static Short set_short(int16_t value) { return _mm512_set1_epi16(value); }
  static Short load_bytes(const uint8_t* in, int max) {
    const __m512i wide =
        _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in)));
    return _mm512_min_epu16(wide, _mm512_set1_epi16(static_cast<int16_t>(max)));
  }
  static Short third(Short x) { return _mm512_mulhi_epu16(x, _mm512_set1_epi16(21846)); }
  static Short add(Short a, Short b) { return _mm512_add_epi16(a, b); }
  static Short sub(Short a, Short b) { return _mm512_sub_epi16(a, b); }
  static Short crumb(Short x, int shift) {
    const __m512i digit =
        _mm512_and_si512(_mm512_srl_epi16(x, _mm_cvtsi32_si128(shift)), _mm512_set1_epi16(3));
    return _mm512_min_epu16(digit, _mm512_set1_epi16(2));
  }
  static void store_shorts(Short x, int16_t* out) { _mm512_storeu_si512(out, x); }
  static Short load_shorts(const int16_t* in) { return _mm512_loadu_si512(in); }
  static void store_scaled(Short x, float factor, float* out) {
    const __m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(x));
    const __m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(x, 1));
    const __m512 scale = _mm512_set1_ps(factor);
    _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_cvtepi32_ps(low), scale));
    _mm512_storeu_ps(out + 16, _mm512_mul_ps(_mm512_cvtepi32_ps(high), scale));
  }

  // Four vectors of each sum hide the latency of the additions.
  struct Moments {
    __m512d sum[4], square[4];
  };
  static void clear(Moments& m) {
    for (int i = 0; i < 4; ++i) m.sum[i] = m.square[i] = _mm512_setzero_pd();
  }
  static void add_row(Moments& m, const float* x) {
    for (int i = 0; i < 4; ++i) {
      const __m512d value = _mm512_cvtps_pd(_mm256_loadu_ps(x + 8 * i));
      m.sum[i] = _mm512_add_pd(m.sum[i], value);
      m.square[i] = _mm512_fmadd_pd(value, value, m.square[i]);
    }
  }
  static void store(const Moments& m, double* sum, double* square) {
    for (int i = 0; i < 4; ++i) {
      _mm512_storeu_pd(sum + 8 * i, m.sum[i]);
      _mm512_storeu_pd(square + 8 * i, m.square[i]);
    }
  }
};

}  // namespace
