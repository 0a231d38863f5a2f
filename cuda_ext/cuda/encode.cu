// Encode: values and scales -> packed ternary codes.
//
// A thread owns four adjacent lanes of a block through all its slots and planes: one Philox call
// serves its eight slots, 16-byte loads serve its four lanes, and the bytes need no exchange
// between threads. Four threads read 64 contiguous bytes of each row, whole sectors of memory.
#include "cuda/common.cuh"

namespace {

using knet::kQuad;
using knet::kQuads;
using knet::kSlots;
using EncodeGroup = knet::LaunchGroup<knet::EncodeItem>;

// What the tensors of a launch share; the key's stream is a tensor's own.
struct Shared {
  knet::RandomKey key;
  uint32_t groups_per_scale;
  bool stochastic;
};
static_assert(sizeof(Shared) <= knet::kSharedBytes);

// The four values of each slot that the thread of lane `lane` owns in the group at `first`.
template <class T>
KNET_DEVICE void load_group(const T* values, int64_t first, int lane, int64_t num_values,
                            bool aligned, Run<T, kQuad> rows[kSlots]) {
  if (aligned && first + kGroup <= num_values) {
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot)
      rows[slot] = load_run<T, kQuad>(values + first + slot * knet::kLanes + lane);
    return;
  }
#pragma unroll
  for (int slot = 0; slot < kSlots; ++slot)
    rows[slot] = load_ragged<T, kQuad>(values, first + slot * knet::kLanes + lane, num_values);
}

// Adds weight * code to the byte of each value: digits never carry, so four bytes add as one word.
template <DType kType>
KNET_DEVICE void add_codes(const Run<Storage<kType>, kQuad> rows[kSlots], float inverse,
                           float boost, const uint32_t words[kQuad][4], uint32_t weight,
                           uint32_t sums[kSlots]) {
#pragma unroll
  for (int slot = 0; slot < kSlots; ++slot)
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      const float x = to_float<kType>(rows[slot].value[i]);
      const int32_t code = knet::ternarize(x, inverse, knet::random16(words[i], slot), boost);
      sums[slot] += static_cast<uint32_t>(code) * (weight << (8 * i));
    }
}

template <DType kType, WireFormat kFormat>
__global__ void __launch_bounds__(kThreads)
    encode_kernel(const __grid_constant__ EncodeGroup launch_group, const Shared shared) {
  constexpr int kPlanes = knet::num_planes(kFormat);
  constexpr uint32_t kZeroByte = knet::zero_byte(kFormat);
  const Place place(launch_group);
  const knet::EncodeItem& a = launch_group.items[place.tensor];
  const int64_t block = place.thread / kQuads, num_values = a.num_values;
  const int lane = static_cast<int>(threadIdx.x % kQuads) * kQuad;
  if (block * kPlanes * kGroup >= num_values)
    return;
  const auto* values = static_cast<const Storage<kType>*>(a.values);
  const bool aligned = is_aligned(values, 16);
  knet::RandomKey key = shared.key;
  key.stream = a.stream;
  ScaleCursor cursor(block * kPlanes, shared.groups_per_scale);
  float inverse = 0.0f, boost = 1.0f;
  uint32_t sums[kSlots], weight = 1;
#pragma unroll
  for (uint32_t& sum : sums) sum = kZeroByte * 0x01010101u;
#pragma unroll 1  // five copies of the body would not fit the instruction cache
  for (int plane = 0; plane < kPlanes; ++plane, weight *= knet::radix(kFormat)) {
    const int64_t group = block * kPlanes + plane;
    if (group * kGroup >= num_values)
      break;
    Run<Storage<kType>, kQuad> rows[kSlots];  // eight loads in flight while Philox computes
    load_group(values, group * kGroup, lane, num_values, aligned, rows);
    if (plane == 0 || cursor.next_is_new()) {
      const float scale = a.scales[cursor.scale_group];
      inverse = knet::inverse_scale(scale);
      boost = knet::boost_of(scale);
    }
    uint32_t words[kQuad][4];
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      for (uint32_t& word : words[i]) word = knet::kNearestThreshold * 0x00010001u;
      if (shared.stochastic)
        knet::philox4x32((a.first_group + static_cast<uint32_t>(group)) * knet::kLanes + lane + i,
                         key, words[i]);
    }
    add_codes<kType>(rows, inverse, boost, words, weight, sums);
  }
  uint8_t* out = a.payload + block * knet::kBlockBytes + lane;
  const bool payload_aligned = is_aligned(a.payload, kQuad);
#pragma unroll
  for (int slot = 0; slot < kSlots; ++slot) {
    Run<uint8_t, kQuad> bytes;
    memcpy(&bytes, &sums[slot], sizeof bytes);
    store_run(bytes, out, slot * knet::kLanes, knet::kBlockBytes, payload_aligned);
  }
}

}  // namespace

const char* knet::encode_cuda(const EncodeArgs* tensors, int64_t count, void* stream) {
  const Shared shared{tensors->key, groups_per_scale(tensors->scale_group_size),
                      tensors->stochastic};
  return with_format(tensors->format, [&](auto format) {
    return encode_launches(
        tensors, count, [&](auto type, const EncodeGroup& launch_group, int64_t blocks) {
          return launch(encode_kernel<decltype(type)::value, decltype(format)::value>, blocks,
                        kThreads, stream, launch_group, shared);
        });
  });
}
