#!/usr/bin/env bash
# Compiles the CUDA kernels as C++, with their threads emulated, and compares them with the portable CPU
# kernels, bit for bit, over random sizes, dtypes and alignments. Needs a C++ compiler, and no GPU.
#
#   tools/emulate_cuda.sh [ROUNDS [SEED [SOURCE [BUILD]]]]   100 rounds of cuda_ext, in build/emulator
#
# A misaligned access of a kernel is a trap: "Illegal instruction".
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
rounds=${1:-100} seed=${2:-1} source=${3:-$root/cuda_ext} build=${4:-$root/build/emulator}
flags=(-std=c++17 -O1 -ffp-contract=off -fno-math-errno -fsanitize=alignment
  -fsanitize-undefined-trap-on-error -Wno-unknown-pragmas
  -DKNET_WITH_CUDA -DKNET_EMULATOR "-I$source" "-I$source/emulator")

# compile FILE...: compiles what is older than its source or than any header, all at once.
compile() {
  local file object jobs=() job
  for file; do
    object=$build/$(basename "$file").o
    if [[ ! -e $object || -n $(find "$file" "$source" \( -name '*.h' -o -name '*.cuh' -o -path "$file" \) -newer "$object") ]]; then
      "${CXX:-c++}" "${flags[@]}" -x c++ -c "$file" -o "$object" &
      jobs+=($!)
    fi
  done
  for job in "${jobs[@]}"; do wait "$job"; done
}

mkdir -p "$build"
files=("$source"/cuda/*.cu "$source"/cpu/{portable,dispatch}.cpp "$source"/emulator/compare.cpp)
compile "${files[@]}"
objects=()
for file in "${files[@]}"; do objects+=("$build/$(basename "$file").o"); done
"${CXX:-c++}" "${objects[@]}" -o "$build/compare"
"$build/compare" "$rounds" "$seed" 20000
