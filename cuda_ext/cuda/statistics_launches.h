// How the launches of statistics, scales and largest values are shared: see launch_groups.h.
#pragma once

#include <type_traits>

#include "cuda/launch_groups.h"

namespace knet {

// --- statistics and max_abs: a warp to each chunk of each scale group
template <class Result>
struct ChunkItem {
  const void* values;
  int64_t num_values;
  Result* result;
  uint32_t chunks_per_scale;
};

template <class Args>
int64_t count_chunks(const Args& a) {
  return count_scale_groups(a.num_values, a.scale_group_size) *
         chunks_per_scale(a.num_values, a.scale_group_size);
}

template <class Args>
int64_t chunk_blocks(const Args& a) {
  return ceil_div(count_chunks(a) * kWarp, kThreads);
}

// Where the results of chunks go: sums beside each other, a maximum to its scale group's.
inline double* chunk_results(const StatisticsArgs& a) { return a.partial; }
inline float* chunk_results(const MaxAbsArgs& a) { return a.scales; }

template <class Args, class Launch>
const char* chunk_launches(const Args* tensors, int64_t count, const Launch& launch) {
  using Item = ChunkItem<std::remove_pointer_t<decltype(chunk_results(*tensors))>>;
  return in_dtype_launches<Item>(
      tensors, count, chunk_blocks<Args>,
      [](const Args& a) {
        const auto chunks = chunks_per_scale(a.num_values, a.scale_group_size);
        return Item{a.values, a.num_values, chunk_results(a), static_cast<uint32_t>(chunks)};
      },
      launch);
}

// Sums of chunks -> moments or scales of scale groups, `width` lanes to a scale group. Places count
// from those of the first tensor, so that one launch takes as many tensors as two of the others do.
struct FinalItem {
  int64_t num_values;
  uint32_t first_partial, first_result;
};

// Of the kFinalLanes lanes of a scale group, only the first `width` hold chunks.
KNET_HD int final_width(int64_t chunks_per_scale) {
  int width = 1;
  while (width < kFinalLanes && width < chunks_per_scale) width *= 2;
  return width;
}

// Threads of a block, which holds whole scale groups: all lanes of the widest one.
inline int final_threads(const StatisticsArgs* tensors, int64_t count) {
  int threads = kThreads;
  for (int64_t i = 0; i < count; ++i) {
    const int width =
        final_width(chunks_per_scale(tensors[i].num_values, tensors[i].scale_group_size));
    threads = width > threads ? width : threads;
  }
  return threads;
}

template <class Launch>
const char* final_launches(const StatisticsArgs* tensors, int64_t count, int block_threads,
                           const Launch& launch) {
  return in_launches<FinalItem>(
      tensors, count,
      [&](const StatisticsArgs& a) {
        const int width = final_width(chunks_per_scale(a.num_values, a.scale_group_size));
        return ceil_div(count_scale_groups(a.num_values, a.scale_group_size) * width,
                        block_threads);
      },
      [&](const StatisticsArgs& a) {
        return FinalItem{
            a.num_values,
            static_cast<uint32_t>((a.partial - tensors->partial) / 2),
            static_cast<uint32_t>(a.moments != nullptr ? (a.moments - tensors->moments) / 2
                                                       : a.scales - tensors->scales),
        };
      },
      launch);
}

}  // namespace knet
