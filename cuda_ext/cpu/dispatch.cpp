// Chooses the CPU kernels once, by what the processor has or by what KNET_CPU asks for.
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/launchers.h"

namespace knet {
namespace {

std::vector<CpuKernels> runnable_kernels() {  // the fastest last
  std::vector<CpuKernels> all{portable_kernels()};
#if defined(KNET_HAVE_X86_SIMD)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    all.push_back(avx2_kernels());
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
      all.push_back(avx512_kernels());
  }
#endif
  return all;
}

CpuKernels choose() {
  const std::vector<CpuKernels> all = runnable_kernels();
  const char* wanted = std::getenv("KNET_CPU");
  if (wanted == nullptr || *wanted == '\0')
    return all.back();
  std::string names;
  for (const CpuKernels& kernels : all) {
    if (wanted == std::string(kernels.name))
      return kernels;
    names += std::string(names.empty() ? "" : ", ") + kernels.name;
  }
  throw std::runtime_error("KNET_CPU=" + std::string(wanted) + ": this processor runs " + names);
}

}  // namespace

const CpuKernels& cpu_kernels() {
  static const CpuKernels chosen = choose();
  return chosen;
}

void final_statistics(const StatisticsArgs& a, int64_t scale_group) {
  const int64_t num_chunks = chunks_per_scale(a.num_values, a.scale_group_size);
  const double* partial = a.partial + 2 * scale_group * num_chunks;
  double total[2];
  for (int part = 0; part < 2; ++part) {
    double lanes[kFinalLanes] = {};
    for (int64_t i = 0; i < num_chunks; ++i) lanes[i % kFinalLanes] += partial[2 * i + part];
    int used = 1;  // adding the zeros of other lanes would change nothing
    while (used < kFinalLanes && used < num_chunks) used *= 2;
    for (int width = used / 2; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    total[part] = lanes[0];
  }
  if (a.moments != nullptr) {
    a.moments[2 * scale_group] = total[0];
    a.moments[2 * scale_group + 1] = total[1];
  } else {
    const int64_t count = values_in(scale_group, a.num_values, a.scale_group_size);
    a.scales[scale_group] = scale_of(total[0], total[1], count, a.rule, a.clip_factor);
  }
}

}  // namespace knet
