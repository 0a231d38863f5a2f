// Compares the emulated CUDA kernels with the portable CPU kernels, bit for bit, in random rounds:
//
//   compare ROUNDS SEED MAX_VALUES
//
// Both write to buffers that differ in nothing but who fills them, guards and alignment included.
#include <cstdio>
#include <cstdlib>

#include "emulator/compare_decoders.h"
#include "emulator/compare_encoders.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: compare ROUNDS SEED MAX_VALUES\n");
    return 2;
  }
  const int64_t rounds = std::atoll(argv[1]), max_values = std::atoll(argv[3]);
  generator.seed(static_cast<uint64_t>(std::atoll(argv[2])));
  for (int64_t i = 0; i < rounds; ++i) {
    const Round round(max_values);
    compare_statistics(round, true);
    compare_statistics(round, false);
    compare_max_abs(round);
    compare_encode(round);
    compare_decode(round);
    compare_digits(max_values);
  }
  std::printf("compare: %lld rounds of every op agree with the CPU's bits\n",
              static_cast<long long>(rounds));
  return 0;
}
