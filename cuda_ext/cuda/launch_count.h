// How many kernels a call starts on a GPU, counted where there is none by the code that starts
// them.
#pragma once

#include <cstdint>
#include <string>

namespace knet {

// Launches of one call of `op` on fp32 tensors of these sizes; -1 for an op that takes no list.
int64_t count_launches(const std::string& op, const int64_t* num_values, int64_t count,
                       int64_t scale_group_size);

}  // namespace knet
