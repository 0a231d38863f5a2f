#!/usr/bin/env bash
# Compiles the CUDA kernels for sm_80 and sm_90, without torch and without a GPU, and fails if registers
# spill to memory. CMakeLists.txt gives the flags, so they are those of the real build.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

skip() {
  echo "check_cuda: skipped: $1"
  exit 0
}
command -v nvcc >/dev/null || skip "nvcc is not installed"
command -v cmake >/dev/null || skip "cmake is not installed"

build=build/check_cuda
log=$build/compile.log
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
mkdir -p "$build"
{
  cmake -S . -B "$build" "${generator[@]}" -DKNET_CUDA=on "-DCMAKE_CUDA_ARCHITECTURES=80-real;90-real" \
    -DCMAKE_CUDA_FLAGS=-Xptxas=-v &&
    # --clean-first: what is not compiled reports no registers.
    cmake --build "$build" --target knet_cuda --clean-first --parallel 2
} >"$log" 2>&1 || {
  cat "$log" >&2
  echo "check_cuda: the CUDA kernels do not compile (log: $log)" >&2
  exit 1
}

kernels=$(($(grep -c 'Compiling entry function' "$log" || true) / 2)) # each once for either GPU
spills=$(grep -E '[1-9][0-9]* bytes spill' "$log" || true)
registers=$(sed -nE 's/.*Used ([0-9]+) registers.*/\1/p' "$log" | sort -n | tail -n 1)
if [[ -n $spills ]]; then
  grep -E 'Compiling entry function|[1-9][0-9]* bytes spill' "$log" | grep -B1 'bytes spill' >&2
  echo "check_cuda: registers spill to memory; give the kernels above fewer live values (log: $log)" >&2
  exit 1
fi
echo "check_cuda: $kernels kernels compiled for sm_80 and sm_90, at most ${registers:-0} registers, no spills"
