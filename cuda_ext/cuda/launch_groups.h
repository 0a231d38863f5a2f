// Which tensors share a launch, and how its blocks of threads are dealt out among them.
//
// What tells tensors apart travels with the parameters of a kernel: no memory on the device, no
// copy, nothing to wait for, and a CUDA graph keeps it. Plain C++, so that launches can be counted
// where there is no CUDA.
#pragma once

#include <type_traits>

#include "core/launchers.h"

namespace knet {

// Small blocks of threads spread a small tensor over more multiprocessors, and 32 of them, the
// most that one holds, still make its full 2048 threads.
constexpr int kThreads = 64;
constexpr int kWarp = 32;
constexpr int64_t kMaxBlocks = 0x7FFFFFFF;

// What every version of CUDA passes to a kernel, and the part of it for what tensors share.
constexpr int kParameterBytes = 4096;
constexpr int kSharedBytes = 64;

// Tensors of one launch: items[i] has blocks first_block[i] up to first_block[i + 1].
template <class Item>
struct LaunchGroup {
  static constexpr int kCapacity =
      (kParameterBytes - kSharedBytes - 8) / static_cast<int>(sizeof(Item) + sizeof(uint32_t));
  Item items[kCapacity];
  uint32_t first_block[kCapacity];
  int32_t count;
};
static_assert(sizeof(LaunchGroup<uint64_t>) + kSharedBytes <= kParameterBytes);

// Calls launch(launch_group, number of blocks) for as few launch groups as hold all tensors, in
// order, but those without a block; returns the first error.
template <class Item, class Args, class CountBlocks, class MakeItem, class Launch>
const char* in_launches(const Args* tensors, int64_t count, const CountBlocks& count_blocks,
                        const MakeItem& make_item, const Launch& launch) {
  LaunchGroup<Item> launch_group;
  launch_group.count = 0;
  int64_t blocks = 0;
  for (const Args* tensor = tensors; tensor < tensors + count; ++tensor) {
    const int64_t more = count_blocks(*tensor);
    if (more == 0)
      continue;
    if (launch_group.count == launch_group.kCapacity ||
        (launch_group.count > 0 && blocks + more > kMaxBlocks)) {
      if (const char* error = launch(launch_group, blocks))
        return error;
      launch_group.count = 0;
      blocks = 0;
    }
    launch_group.first_block[launch_group.count] = static_cast<uint32_t>(blocks);
    launch_group.items[launch_group.count++] = make_item(*tensor);
    blocks += more;
  }
  return launch_group.count > 0 ? launch(launch_group, blocks) : nullptr;
}

// The same for the tensors of each dtype; launch(integral constant of the dtype, launch_group,
// blocks).
template <class Item, class Args, class CountBlocks, class MakeItem, class Launch>
const char* in_dtype_launches(const Args* tensors, int64_t count, const CountBlocks& count_blocks,
                              const MakeItem& make_item, const Launch& launch) {
  const char* error = nullptr;
  const auto run = [&](auto dtype) {
    const auto own_blocks = [&](const Args& a) {
      return a.dtype == decltype(dtype)::value ? count_blocks(a) : 0;
    };
    const auto own_launch = [&](const LaunchGroup<Item>& launch_group, int64_t blocks) {
      return launch(dtype, launch_group, blocks);
    };
    if (error == nullptr)
      error = in_launches<Item>(tensors, count, own_blocks, make_item, own_launch);
  };
  run(std::integral_constant<DType, DType::kFloat32>());
  run(std::integral_constant<DType, DType::kFloat64>());
  run(std::integral_constant<DType, DType::kFloat16>());
  run(std::integral_constant<DType, DType::kBFloat16>());
  return error;
}

// --- encode: four lanes of a block to a thread
constexpr int kQuad = 4;
constexpr int kQuads = kLanes / kQuad;

struct EncodeItem {
  const void* values;
  int64_t num_values;
  const float* scales;
  uint8_t* payload;
  uint32_t stream, first_group;
};

template <class Launch>
const char* encode_launches(const EncodeArgs* tensors, int64_t count, const Launch& launch) {
  return in_dtype_launches<EncodeItem>(
      tensors, count,
      [](const EncodeArgs& a) {
        return ceil_div(ceil_div(a.num_values, block_values(a.format)) * kQuads, kThreads);
      },
      [](const EncodeArgs& a) {
        return EncodeItem{a.values, a.num_values, a.scales, a.payload, a.key.stream, a.first_group};
      },
      launch);
}

// --- decode and dequantize: adjacent values to a thread, as many as fill 16 bytes of output (fp64:
// half as many)
KNET_HD constexpr int output_run(int64_t value_bytes) { return value_bytes == 2 ? 8 : 4; }

inline int output_run(DType dtype) {
  return output_run(dtype == DType::kFloat16 || dtype == DType::kBFloat16 ? 2 : 4);
}

struct DecodeItem {
  const uint8_t* payloads;
  const float* scales;
  void* out;
  int64_t num_values;
};

inline int64_t decode_blocks(const DecodeArgs& a) {
  const int run = a.sums != nullptr ? output_run(sizeof *a.sums) : output_run(a.dtype);
  return ceil_div(ceil_div(a.num_values, block_values(a.format)) * (kBlockBytes / run), kThreads);
}

inline DecodeItem decode_item(const DecodeArgs& a) {
  return {a.payloads, a.scales, a.sums != nullptr ? a.sums : a.values, a.num_values};
}

template <class Launch>
const char* decode_launches(const DecodeArgs* tensors, int64_t count, const Launch& launch) {
  return in_dtype_launches<DecodeItem>(tensors, count, decode_blocks, decode_item, launch);
}

// Dequantize takes the same place in several consecutive groups.
constexpr int kDequantizeRows = 4;

struct DequantizeItem {
  const int16_t* sums;
  const float* scales;
  void* out;
  int64_t num_values;
};

template <class Launch>
const char* dequantize_launches(const DequantizeArgs* tensors, int64_t count,
                                const Launch& launch) {
  return in_dtype_launches<DequantizeItem>(
      tensors, count,
      [](const DequantizeArgs& a) {
        const int64_t places = ceil_div(a.num_values, kDequantizeRows * kGroup);
        return ceil_div(places * (kGroup / output_run(a.dtype)), kThreads);
      },
      [](const DequantizeArgs& a) {
        return DequantizeItem{a.sums, a.scales, a.values, a.num_values};
      },
      launch);
}

}  // namespace knet
