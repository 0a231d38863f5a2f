// The CPU kernels compiled for this instruction set; CMakeLists.txt gives the flags.
#include "cpu/digits.h"
#include "cpu/kernels.h"
#include "cpu/simd_portable.h"
#include "cpu/statistics.h"

namespace knet {

CpuKernels portable_kernels() {
  return {Portable::kName, encode<Portable>, decode<Portable>,     dequantize<Portable>,
          pack_digits,     unpack_digits,    statistics<Portable>, max_abs<Portable>};
}

}  // namespace knet
