// Random tensors and settings of a round.
#pragma once

#include <vector>

#include "emulator/buffers.h"

namespace {

struct Tensor {
  DType dtype;
  int64_t num_values;
  Buffer<void*> values;
};

Tensor random_tensor(int64_t max_values) {
  const auto dtype = static_cast<DType>(draw(0, 3));
  const int64_t kind = draw(0, 2), size = draw(0, 9) == 0 ? max_values : max_values / 20 + 1;
  const int64_t num_values = draw(0, 3) == 0 ? draw(0, 5) * kGroup : draw(0, size);
  Tensor tensor{dtype, num_values, Buffer<void*>(num_values, draw(0, 8), bytes_of(dtype))};
  if (kind == 0)  // any bits: NaN, infinite, subnormal
    tensor.values.fill_random();
  std::normal_distribution<float> normal(0.1f, kind == 1 ? 1.0f : 1e-36f);
  for (int64_t i = 0; kind > 0 && i < num_values; ++i)
    store_value(tensor.values.bytes(), dtype, i, normal(generator));
  return tensor;
}

struct Round {
  std::vector<Tensor> tensors;
  int64_t scale_group_size;
  WireFormat format;
  int64_t num_scales = 0, num_blocks = 0, num_chunks = 0;

  explicit Round(int64_t max_values)
      : scale_group_size(draw(0, 2) == 0 ? kWholeTensor : kGroup * draw(1, 90)),
        format(static_cast<WireFormat>(draw(0, 1))) {
    for (int64_t left = draw(0, 3) == 0 ? draw(1, 230) : draw(1, 9); left > 0; --left) {
      tensors.push_back(random_tensor(max_values));
      num_scales += scales_of(tensors.back());
      num_blocks += blocks_of(tensors.back());
      num_chunks += scales_of(tensors.back()) * chunks_of(tensors.back());
    }
  }
  int64_t scales_of(const Tensor& t) const {
    return count_scale_groups(t.num_values, scale_group_size);
  }
  int64_t blocks_of(const Tensor& t) const { return ceil_div(t.num_values, block_values(format)); }
  int64_t chunks_of(const Tensor& t) const {
    return chunks_per_scale(t.num_values, scale_group_size);
  }
};

}  // namespace
