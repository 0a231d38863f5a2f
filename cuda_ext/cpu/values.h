// Runs of values as fp32, for the CPU kernels.
#pragma once

#include "core/launchers.h"

namespace {

using knet::DType;

// Values [begin, begin + count) as fp32: where they lie, or converted (and zero-padded) in buffer.
inline const float* as_floats(const void* values, DType dtype, int64_t begin, int64_t count,
                              int64_t padded, float* buffer) {
  if (dtype == DType::kFloat32 && count == padded)
    return static_cast<const float*>(values) + begin;
  for (int64_t i = 0; i < count; ++i) buffer[i] = knet::load_value(values, dtype, begin + i);
  for (int64_t i = count; i < padded; ++i) buffer[i] = 0.0f;
  return buffer;
}

inline void store_floats(const float* from, void* values, DType dtype, int64_t begin,
                         int64_t count) {
  for (int64_t i = 0; i < count; ++i) knet::store_value(values, dtype, begin + i, from[i]);
}

// The scale of values that come in ascending order, for one division a scale group.
class ScaleCursor {
 public:
  ScaleCursor(const float* scales, int64_t scale_group_size)
      : scales_(scales), size_(scale_group_size) {}
  // Goes to a value; returns whether its scale is another one than that of the value before it.
  bool enter(int64_t value) {
    if (value < end_)
      return false;
    const int64_t scale_group = value / size_;
    end_ = (scale_group + 1) * size_;
    scale_ = scales_[scale_group];
    return true;
  }
  float scale() const { return scale_; }

 private:
  const float* scales_;
  int64_t size_, end_ = 0;
  float scale_ = 0.0f;
};

// Values ahead that are asked for early: one core's memory reads wait less often.
constexpr int kPrefetch = 1024;

inline int64_t clamp(int64_t value, int64_t max) {
  return value < 0 ? 0 : value < max ? value : max;
}

}  // namespace
