// Plain C++ stand-in for a vector unit, and the description of what each of its functions does.
#pragma once

#include "core/codec.h"

namespace {

struct Portable {
  static constexpr const char* kName = "portable";
  static constexpr int kWidth = 8;  // lanes of 32 bits; divides knet::kLanes
  struct Int {
    int32_t lane[kWidth];
  };
  struct Float {
    float lane[kWidth];
  };

  // The four Philox words of counters index, index + 1, ..., one counter a lane.
  static void random_words(uint32_t index, const knet::RandomKey& key, Int words[4]) {
    for (int i = 0; i < kWidth; ++i) {
      uint32_t out[4];
      knet::philox4x32(index + static_cast<uint32_t>(i), key, out);
      for (int w = 0; w < 4; ++w) words[w].lane[i] = static_cast<int32_t>(out[w]);
    }
  }

  static Int low16(Int words) {
    for (int32_t& w : words.lane) w &= 0xFFFF;
    return words;
  }
  static Int high16(Int words) {
    for (int32_t& w : words.lane) w = static_cast<int32_t>(static_cast<uint32_t>(w) >> 16);
    return words;
  }
  static Int set_int(int32_t value) {
    Int all;
    for (int32_t& lane : all.lane) lane = value;
    return all;
  }
  static Float set_float(float value) {
    Float all;
    for (float& lane : all.lane) lane = value;
    return all;
  }

  // sum + weight * ternarize(x, inverse, random), lane by lane.
  static Float accumulate(Float sum, const float* x, Float inverse, Int random, float weight) {
    for (int i = 0; i < kWidth; ++i) {
      const int32_t code = knet::ternarize(x[i], inverse.lane[i], random.lane[i]);
      sum.lane[i] += weight * static_cast<float>(code);
    }
    return sum;
  }

  static void store_bytes(Float sum, uint8_t* out) {
    for (int i = 0; i < kWidth; ++i) out[i] = static_cast<uint8_t>(sum.lane[i]);
  }

  static constexpr int kShorts = 16;  // lanes of 16 bits; divides knet::kGroup
  struct Short {
    int16_t lane[kShorts];
  };

  static Short set_short(int16_t value) {
    Short all;
    for (int16_t& lane : all.lane) lane = value;
    return all;
  }
  // Bytes widened to 16 bits, none above max.
  static Short load_bytes(const uint8_t* in, int max) {
    Short out;
    for (int i = 0; i < kShorts; ++i) out.lane[i] = static_cast<int16_t>(in[i] < max ? in[i] : max);
    return out;
  }
  // x / 3 for 0 <= x < 256.
  static Short third(Short x) {
    for (int16_t& lane : x.lane) lane = static_cast<int16_t>(lane * 21846 >> 16);
    return x;
  }
  static Short add(Short a, Short b) {
    for (int i = 0; i < kShorts; ++i) a.lane[i] = static_cast<int16_t>(a.lane[i] + b.lane[i]);
    return a;
  }
  static Short sub(Short a, Short b) {
    for (int i = 0; i < kShorts; ++i) a.lane[i] = static_cast<int16_t>(a.lane[i] - b.lane[i]);
    return a;
  }
  // min((x >> shift) & 3, 2)
  static Short crumb(Short x, int shift) {
    for (int16_t& lane : x.lane) {
      const int digit = lane >> shift & 3;
      lane = static_cast<int16_t>(digit < 2 ? digit : 2);
    }
    return x;
  }
  static void store_shorts(Short x, int16_t* out) {
    for (int i = 0; i < kShorts; ++i) out[i] = x.lane[i];
  }
  static Short load_shorts(const int16_t* in) {
    Short x;
    for (int i = 0; i < kShorts; ++i) x.lane[i] = in[i];
    return x;
  }
  // kShorts floats: x * factor.
  static void store_scaled(Short x, float factor, float* out) {
    for (int i = 0; i < kShorts; ++i) out[i] = knet::decode_value(x.lane[i], factor);
  }

  // Sums and sums of squares of 32 lanes in fp64, where the square of an fp32 is exact, so that
  // a fused multiply-add rounds as a multiplication and an addition do.
  struct Moments {
    double sum[knet::kStatLanes], square[knet::kStatLanes];
  };
  static void clear(Moments& m) { m = Moments{}; }
  static void add_row(Moments& m, const float* x) {
    for (int i = 0; i < knet::kStatLanes; ++i) {
      const double value = static_cast<double>(x[i]);
      m.sum[i] += value;
      m.square[i] += value * value;
    }
  }
  static void store(const Moments& m, double* sum, double* square) {
    for (int i = 0; i < knet::kStatLanes; ++i) {
      sum[i] = m.sum[i];
      square[i] = m.square[i];
    }
  }
};

}  // namespace
