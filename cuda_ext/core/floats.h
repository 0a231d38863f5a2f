// Numbers by their bits, and values of every dtype as fp32, for the host and for CUDA.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define KNET_HD __host__ __device__ __forceinline__
#else
// Internal linkage: this header is compiled once per instruction set, and the linker must not
// merge an AVX-512 copy of a function into the portable kernels.
#define KNET_HD static inline
#endif

namespace knet {

enum class DType : int { kFloat32 = 0, kFloat64 = 1, kFloat16 = 2, kBFloat16 = 3 };

KNET_HD float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

KNET_HD uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Bits of +inf; as integers, bits of values that are not negative order as the values do, and NaN
// lies above infinity.
constexpr uint32_t kInfinityBits = 0x7F800000u;

KNET_HD float half_to_float(uint16_t half) {
  const uint32_t magnitude = half & 0x7FFFu, sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  uint32_t bits = (magnitude << 13) + 0x38000000u;
  if (magnitude < 0x0400u)  // subnormal: an integer times 2^-24
    bits =
        float_to_bits(static_cast<float>(static_cast<int32_t>(magnitude)) * 5.9604644775390625e-8f);
  if (magnitude >= 0x7C00u)
    bits = 0x7F800000u | (magnitude & 0x3FFu) << 13;
  return bits_to_float(bits | sign);
}

KNET_HD uint16_t float_to_half(float value) {  // round half to even
  const uint32_t all = float_to_bits(value), sign = all >> 16 & 0x8000u, bits = all & 0x7FFFFFFFu;
  uint32_t half = (bits + 0xFFFu + (bits >> 13 & 1u) - 0x38000000u) >> 13;
  if (bits < 0x38800000u)  // below 2^-14: adding 0.5 rounds to a multiple of 2^-24
    half = float_to_bits(bits_to_float(bits) + 0.5f) - 0x3F000000u;
  if (bits >= 0x477FF000u)
    half = bits > 0x7F800000u ? 0x7E00u : 0x7C00u;
  return static_cast<uint16_t>(half | sign);
}

KNET_HD float bfloat16_to_float(uint16_t value) {
  return bits_to_float(static_cast<uint32_t>(value) << 16);
}

KNET_HD uint16_t float_to_bfloat16(float value) {  // round half to even
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
    return 0x7FC0u;
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

KNET_HD float load_value(const void* values, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kFloat64: return static_cast<float>(static_cast<const double*>(values)[i]);
    case DType::kFloat16: return half_to_float(static_cast<const uint16_t*>(values)[i]);
    case DType::kBFloat16: return bfloat16_to_float(static_cast<const uint16_t*>(values)[i]);
    default: return static_cast<const float*>(values)[i];
  }
}

KNET_HD void store_value(void* values, DType dtype, int64_t i, float value) {
  switch (dtype) {
    case DType::kFloat64: static_cast<double*>(values)[i] = static_cast<double>(value); break;
    case DType::kFloat16: static_cast<uint16_t*>(values)[i] = float_to_half(value); break;
    case DType::kBFloat16: static_cast<uint16_t*>(values)[i] = float_to_bfloat16(value); break;
    default: static_cast<float*>(values)[i] = value;
  }
}

}  // namespace knet
