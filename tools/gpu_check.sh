#!/usr/bin/env bash
# Checks the codec on a machine with a GPU: builds the CUDA kernels, runs the tests that need a GPU, measures.
#
#   tools/gpu_check.sh [FOLDER]     logs and results go to FOLDER, build/gpu_check unless given
#
# Prints JSON: each step's state and seconds, and what the benchmarks printed. Takes 10 minutes at most; a step
# that fails or runs out of time does not stop the next. Needs nvcc, cmake, a torch with CUDA, pytest and hypothesis,
# no Horovod, no MPI and no network. Ends with 1 if a step failed.
#
# PYTHON             the interpreter (.venv/bin/python, or python3)
# KNET_GPU_BUDGET_S  seconds in all (560)
# KNET_GPU_DEVICE    cpu: tries the script itself where there is no GPU
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-build/gpu_check} budget_s=${KNET_GPU_BUDGET_S:-560} device=${KNET_GPU_DEVICE:-cuda}
python=${PYTHON:-}
if [[ -z $python ]]; then
  python=python3
  [[ -x .venv/bin/python ]] && python=$PWD/.venv/bin/python
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -f "$out"/*.log "$out"/*.json "$out/steps"
: >"$out/steps"
export PYTHONPATH=$PWD PATH="$PATH:/usr/local/cuda/bin"

# step NAME LIMIT_S COMMAND...: what it prints goes to NAME.json, and what it complains of to NAME.log
step() {
  local name=$1 limit_s=$2 start=$SECONDS left=$((budget_s - SECONDS)) state=ok
  shift 2
  ((limit_s > left)) && limit_s=$left
  if ((limit_s < 5)); then
    state=skipped
  else
    timeout --kill-after 5 "$limit_s" "$@" >"$out/$name.json" 2>"$out/$name.log" || state="failed ($?)"
  fi
  printf '%s\t%s\t%s\n' "$name" "$state" "$((SECONDS - start))" >>"$out/steps"
  printf 'gpu_check: %-20s %-14s %s s\n' "$name" "$state" "$((SECONDS - start))" >&2
}

# The library goes into the tree: Python would import the tree's own package, not an installed one.
build() {
  if [[ $device == cuda ]]; then export KNET_CUDA=on; fi
  "$python" setup.py build_ext --inplace >&2
}

machine() {
  "$python" - "$device" <<'PYTHON'
import json, sys
import torch
from knet_hvd import ops

device = sys.argv[1]
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "kernels": ops.backend(device)}
if device == "cuda":
    found["gpu"] = torch.cuda.get_device_name()
print(json.dumps(found))
sys.exit(found["kernels"] == "pytorch")
PYTHON
}

gpu_tests() {
  local chosen=() status=0
  if [[ $device == cuda ]]; then
    chosen=(-m gpu)
    # Without a GPU all of them are skipped, and pytest is content.
    "$python" -c 'import torch; torch.cuda.get_device_name()'
  fi
  # ${chosen[@]+...}: an empty array is an error under `set -u` in bash 4.3 and older
  "$python" -m pytest -q -n0 -p no:cacheprovider ${chosen[@]+"${chosen[@]}"} tests/single/ops/test_many.py \
    tests/single/ops/test_contract.py tests/single/ops/test_encode_bits.py tests/single/ops/test_any_bytes.py \
    tests/single/ops/test_errors.py tests/single/ops/test_range.py >&2 || status=$?
  return "$status"
}

export -f build machine gpu_tests
export python device
repeats=21 sizes=(20 22 26 28) # powers of 2: from what a bucket holds to what fills the GPU
[[ $device == cuda ]] || repeats=1 sizes=(16)
step build 240 bash -euo pipefail -c build
step machine 60 bash -euo pipefail -c machine
step tests 150 bash -euo pipefail -c gpu_tests
for size in "${sizes[@]}"; do
  step "codec_$size" 60 "$python" benchmarks/codec/codec.py --device "$device" --values $((1 << size)) --repeats "$repeats"
done
for network in resnet50 vgg16; do
  step "many_$network" 60 "$python" -m benchmarks.codec.codec_many --device "$device" --network "$network" --repeats "$repeats"
done

"$python" - "$out" <<'PYTHON' | tee "$out/summary.json"
import json, sys
from pathlib import Path

out = Path(sys.argv[1])
summary, results = {}, {}
for line in (out / "steps").read_text().splitlines():
    name, state, seconds = line.split("\t")
    summary[name] = {"state": state, "seconds": int(seconds)}
    printed = out / f"{name}.json"
    if state == "ok" and printed.exists() and printed.read_text().strip():
        results[name] = json.loads(printed.read_text())
print(json.dumps({"steps": summary, "results": results}, indent=2))
PYTHON
! grep -qv "$(printf '\tok\t')" "$out/steps"
