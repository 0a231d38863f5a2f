#include "cuda/launch_count.h"

#include <vector>

#include "cuda/launch_groups.h"
#include "cuda/statistics_launches.h"

namespace knet {
namespace {

// Takes the place of a launch.
struct Counter {
  int64_t* launches;
  template <class... Arguments>
  const char* operator()(const Arguments&...) const {
    ++*launches;
    return nullptr;
  }
};

template <class Args>
std::vector<Args> tensors_of(const int64_t* num_values, int64_t count, int64_t scale_group_size) {
  std::vector<Args> tensors(static_cast<size_t>(count), Args{});
  for (Args& tensor : tensors) {
    tensor.num_values = *num_values++;
    tensor.scale_group_size = scale_group_size;
  }
  return tensors;
}

}  // namespace

int64_t count_launches(const std::string& op, const int64_t* num_values, int64_t count,
                       int64_t scale_group_size) {
  int64_t launches = 0;
  const Counter add{&launches};
  if (op == "statistics" || op == "scales") {
    const auto tensors = tensors_of<StatisticsArgs>(num_values, count, scale_group_size);
    chunk_launches(tensors.data(), count, add);
    final_launches(tensors.data(), count, final_threads(tensors.data(), count), add);
  } else if (op == "ternarize") {
    const auto tensors = tensors_of<EncodeArgs>(num_values, count, scale_group_size);
    encode_launches(tensors.data(), count, add);
  } else if (op == "decode_mean") {
    const auto tensors = tensors_of<DecodeArgs>(num_values, count, scale_group_size);
    decode_launches(tensors.data(), count, add);
  } else if (op == "dequantize") {
    const auto tensors = tensors_of<DequantizeArgs>(num_values, count, scale_group_size);
    dequantize_launches(tensors.data(), count, add);
  } else {
    return -1;
  }
  return launches;
}

}  // namespace knet
