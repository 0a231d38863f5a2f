// Decode: payloads of N ranks -> sums of codes, or values; and dequantize: sums -> values.
//
// A thread owns adjacent bytes of a block, as many as fill 16 bytes of output in every plane (fp64:
// half as many), so that a warp writes each plane of its block as one contiguous piece.
#include "cuda/common.cuh"
#include "cuda/digit_sums.cuh"

namespace {

// What is written for a sum of codes: the sum itself ...
struct SumOutput {
  using T = int16_t;
  static constexpr bool kScaled = false;
  static KNET_DEVICE T convert(int32_t sum, float) { return static_cast<T>(sum); }
};

// ... or its value.
template <DType kType>
struct ValueOutput {
  using T = Storage<kType>;
  static constexpr bool kScaled = true;
  static KNET_DEVICE T convert(int32_t sum, float factor) {
    return from_float<kType>(knet::decode_value(sum, factor));
  }
};

template <class Output>
constexpr int kRun = knet::output_run(sizeof(typename Output::T));

using DecodeGroup = knet::LaunchGroup<knet::DecodeItem>;
using DequantizeGroup = knet::LaunchGroup<knet::DequantizeItem>;

// What the tensors of a launch share.
struct Shared {
  int64_t num_payloads, row_bytes;
  uint32_t groups_per_scale;
  int32_t divisor;
  bool rows_aligned;  // each as the first one
};
static_assert(sizeof(Shared) <= knet::kSharedBytes);

// kWords words at `from`, which without alignment are put together from bytes.
template <bool kAligned, int kWords>
KNET_DEVICE Run<uint32_t, kWords> load_words(const uint8_t* from) {
  if constexpr (kAligned) {
    return *reinterpret_cast<const Run<uint32_t, kWords>*>(from);
  } else {
    Run<uint32_t, kWords> words = {};
#pragma unroll
    for (int i = 0; i < 4 * kWords; ++i)
      words.value[i / 4] |= static_cast<uint32_t>(from[i]) << (i % 4 * 8);
    return words;
  }
}

// Adds the bytes of every payload; sums[2 i] holds bytes 4 i and 4 i + 2, sums[2 i + 1] the others.
template <bool kAligned, int kWords, WireFormat kFormat>
KNET_DEVICE void add_payloads(const uint8_t* first, const Shared& shared,
                              DigitSums<kFormat> sums[2 * kWords]) {
#pragma unroll 4  // loads in flight
  for (int64_t rank = 0; rank < shared.num_payloads; ++rank) {
    const auto words = load_words<kAligned, kWords>(first + rank * shared.row_bytes);
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      const uint32_t bytes = DigitSums<kFormat>::valid(words.value[i]);
      sums[2 * i].add(bytes & 0x00FF00FFu);
      sums[2 * i + 1].add(bytes >> 8 & 0x00FF00FFu);
    }
  }
}

// Writes kRows runs of sums, a group apart, from value `first`; sum(row, i) is one of them.
template <class Output, int kRows, class Sum>
KNET_DEVICE void store_rows(typename Output::T* out, int64_t first, int64_t num_values,
                            bool aligned, const float* scales, ScaleCursor cursor, int32_t divisor,
                            const Sum& sum) {
  float factor = 0.0f;
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const int64_t value = first + row * kGroup;
    if (value >= num_values)
      return;
    if (Output::kScaled && (row == 0 || cursor.next_is_new()))
      factor = knet::decode_factor(scales[cursor.scale_group], divisor);
    Run<typename Output::T, kRun<Output>> run;
#pragma unroll
    for (int i = 0; i < kRun<Output>; ++i) run.value[i] = Output::convert(sum(row, i), factor);
    store_run(run, out, value, num_values, aligned);
  }
}

template <class Output, WireFormat kFormat>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(const __grid_constant__ DecodeGroup launch_group, const Shared shared) {
  constexpr int kBytes = kRun<Output>, kPlanes = knet::num_planes(kFormat);
  const Place place(launch_group);
  const knet::DecodeItem& a = launch_group.items[place.tensor];
  const int64_t at = place.thread * kBytes, block = at / knet::kBlockBytes;
  const int64_t first = block * kPlanes * kGroup + at % knet::kBlockBytes;
  const int64_t num_values = a.num_values;
  if (first >= num_values)
    return;
  DigitSums<kFormat> sums[kBytes / 2];
  shared.rows_aligned&& is_aligned(a.payloads, kBytes)
      ? add_payloads<true, kBytes / 4>(a.payloads + at, shared, sums)
      : add_payloads<false, kBytes / 4>(a.payloads + at, shared, sums);
  auto* out = static_cast<typename Output::T*>(a.out);
  const ScaleCursor cursor(block * kPlanes, shared.groups_per_scale);
  store_rows<Output, kPlanes>(out, first, num_values, is_aligned(out, 16), a.scales, cursor,
                              shared.divisor, [&](int plane, int i) {
                                const uint32_t pair = sums[i / 4 * 2 + i % 2].digit(plane);
                                const auto digits =
                                    static_cast<int32_t>(i % 4 < 2 ? pair & 0xFFFFu : pair >> 16);
                                return digits - static_cast<int32_t>(shared.num_payloads);
                              });
}

template <class Output>
const char* decode(const knet::DecodeArgs& common, const DecodeGroup& launch_group, int64_t blocks,
                   void* stream) {
  const Shared shared{common.num_payloads, common.row_bytes,
                      Output::kScaled ? groups_per_scale(common.scale_group_size) : 1,
                      common.divisor,
                      common.num_payloads == 1 || common.row_bytes % kRun<Output> == 0};
  return knet::with_format(common.format, [&](auto format) {
    return launch(decode_kernel<Output, decltype(format)::value>, blocks, kThreads, stream,
                  launch_group, shared);
  });
}

// Like decode, a thread takes the same place in several consecutive groups: their loads are in
// flight together, and one division finds their scale groups.
template <DType kType>
__global__ void __launch_bounds__(kThreads)
    dequantize_kernel(const __grid_constant__ DequantizeGroup launch_group,
                      uint32_t groups_per_scale, int32_t divisor) {
  using Output = ValueOutput<kType>;
  constexpr int kCount = kRun<Output>, kRows = knet::kDequantizeRows;
  const Place place(launch_group);
  const knet::DequantizeItem& a = launch_group.items[place.tensor];
  const int64_t at = place.thread * kCount, block = at / kGroup;
  const int64_t first = block * kRows * kGroup + at % kGroup, num_values = a.num_values;
  if (first >= num_values)
    return;
  auto* out = static_cast<typename Output::T*>(a.out);
  const bool aligned = is_aligned(a.sums, 2 * kCount) && is_aligned(out, 16);
  Run<int16_t, kCount> rows[kRows];
  const bool whole = aligned && first + (kRows - 1) * kGroup + kCount <= num_values;
  if (whole) {
#pragma unroll
    for (int row = 0; row < kRows; ++row)
      rows[row] = load_run<int16_t, kCount>(a.sums + first + row * kGroup);
  } else {
#pragma unroll
    for (int row = 0; row < kRows; ++row)
      rows[row] = load_ragged<int16_t, kCount>(a.sums, first + row * kGroup, num_values);
  }
  const ScaleCursor cursor(block * kRows, groups_per_scale);
  store_rows<Output, kRows>(out, first, num_values, aligned, a.scales, cursor, divisor,
                            [&](int row, int i) { return rows[row].value[i]; });
}

}  // namespace

const char* knet::decode_cuda(const DecodeArgs* tensors, int64_t count, void* stream) {
  if (tensors->sums != nullptr)
    return in_launches<DecodeItem>(tensors, count, decode_blocks, decode_item,
                                   [&](const DecodeGroup& launch_group, int64_t blocks) {
                                     return decode<SumOutput>(*tensors, launch_group, blocks,
                                                              stream);
                                   });
  return decode_launches(
      tensors, count, [&](auto type, const DecodeGroup& launch_group, int64_t blocks) {
        return decode<ValueOutput<decltype(type)::value>>(*tensors, launch_group, blocks, stream);
      });
}

const char* knet::dequantize_cuda(const DequantizeArgs* tensors, int64_t count, void* stream) {
  return dequantize_launches(
      tensors, count, [&](auto type, const DequantizeGroup& launch_group, int64_t blocks) {
        return launch(dequantize_kernel<decltype(type)::value>, blocks, kThreads, stream,
                      launch_group, groups_per_scale(tensors->scale_group_size), tensors->divisor);
      });
}
