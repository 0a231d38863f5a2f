// The CPU kernels compiled for this instruction set; CMakeLists.txt gives the flags.
#include "cpu/digits.h"
#include "cpu/kernels.h"
#include "cpu/simd_avx2.h"
#include "cpu/statistics.h"

namespace knet {

CpuKernels avx2_kernels() {
  return {Avx2::kName, encode<Avx2>,  decode<Avx2>,     dequantize<Avx2>,
          pack_digits, unpack_digits, statistics<Avx2>, max_abs<Avx2>};
}

}  // namespace knet
