// The CPU kernels compiled for this instruction set; CMakeLists.txt gives the flags.
#include "cpu/digits.h"
#include "cpu/kernels.h"
#include "cpu/simd_avx512.h"
#include "cpu/statistics.h"

namespace knet {

CpuKernels avx512_kernels() {
  return {Avx512::kName, encode<Avx512>, decode<Avx512>,     dequantize<Avx512>,
          pack_digits,   unpack_digits,  statistics<Avx512>, max_abs<Avx512>};
}

}  // namespace knet
