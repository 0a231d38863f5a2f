#!/usr/bin/env bash
# Runs every test: single process, system, slurm, and the parallel ones on 1 to 4 ranks with MPI and 2 with Gloo.
# tests/parallel/telling.py says which of them run on which number of ranks.
# Ends with "N passed, N failed" over all runs, and the time of each run.
#
#   tools/test.sh [PYTEST ARGUMENTS]          -m slow: only those that `make test` leaves out
#
# KNET_TEST_LIMIT_S: the longest that one run may take (default 1800 seconds)
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
limit_s=${KNET_TEST_LIMIT_S:-1800}
results=build/test-results
# mpirun gives its ranks a terminal even where its own output goes to a file.
[[ -t 1 ]] || export NO_COLOR=1
rm -rf "$results"
mkdir -p "$results"

# run NAME COMMAND...: every rank writes what it saw to $KNET_RESULTS/rank-*.xml
run() {
  local name=$1 status=0 start=$SECONDS
  shift
  export KNET_RESULTS="$PWD/$results/$name"
  mkdir -p "$KNET_RESULTS"
  printf '\n=== %s\n' "$name"
  timeout --kill-after 10 "$limit_s" "$@" || status=$?
  ((status == 124 || status == 137)) && echo "$name: stopped after $limit_s s"
  echo "$status" >"$KNET_RESULTS/status"
  echo "$((SECONDS - start))" >"$KNET_RESULTS/seconds"
}

# One file a rank: with one file for all, the last rank to end would hide the others.
# shellcheck disable=SC2016  # the rank is known only inside
rank_pytest=(bash -c 'rank=${OMPI_COMM_WORLD_RANK:-${HOROVOD_RANK:-0}}
  exec python -m pytest --junitxml="$KNET_RESULTS/rank-$rank.xml" "$@"' pytest)

# Slurm's jobs mostly wait: other tests run meanwhile, and their output comes first.
slurm=
if [[ -d tests/slurm ]]; then
  set -m # without it, an interrupt would be ignored there
  run slurm "${rank_pytest[@]}" tests/slurm "$@" >"$results/slurm.log" 2>&1 </dev/null &
  slurm=$!
  set +m
  trap 'pkill -INT -P "$slurm"; wait' EXIT # so that it ends its cluster
fi
# Several files at a time: while the jobs of one wait or end, those of the others run.
[[ -d tests/single ]] && run single "${rank_pytest[@]}" tests/single -n 2 --dist loadfile "$@"
[[ -d tests/system ]] && run system "${rank_pytest[@]}" tests/system -n 3 --dist loadfile "$@"
if [[ -n $slurm ]]; then
  wait "$slurm"
  trap - EXIT
  cat "$results/slurm.log"
fi

if [[ -d tests/parallel ]]; then
  # Ranks outnumber cores on small machines: one thread each, and a rank that waits lets the others run.
  export OMP_NUM_THREADS=1
  mpi=(mpirun --oversubscribe --mca mpi_yield_when_idle 1)
  ((EUID == 0)) && mpi+=(--allow-run-as-root)
  for ranks in 1 2 3 4; do
    run "mpirun-$ranks" "${mpi[@]}" -np "$ranks" "${rank_pytest[@]}" tests/parallel "$@"
  done
  run horovodrun-gloo-2 horovodrun --gloo -np 2 -H localhost:2 "${rank_pytest[@]}" tests/parallel "$@"
fi

echo
# A test has failed if it failed on any rank. A run that broke off without naming a failed test is one failure.
python - "$results" <<'E2'
import pathlib, sys
import xml.etree.ElementTree as ET

passed = failed = 0
for run in sorted(folder for folder in pathlib.Path(sys.argv[1]).iterdir() if folder.is_dir()):
    print(f"{run.name}: {(run / 'seconds').read_text().strip()} s")
    outcomes = {}
    for report in run.glob("rank-*.xml"):
        for case in ET.parse(report).iter("testcase"):
            name = (case.get("classname"), case.get("name"))
            bad = case.find("failure") is not None or case.find("error") is not None
            skipped = case.find("skipped") is not None
            outcomes.setdefault(name, set()).add("bad" if bad else "skipped" if skipped else "good")
    run_failed = sum("bad" in seen for seen in outcomes.values())
    if (run / "status").read_text().strip() not in ("0", "5") and not run_failed:  # 5: no tests
        print(f"{run.name} broke off (exit status {(run / 'status').read_text().strip()})")
        run_failed = 1
    failed += run_failed
    passed += sum("good" in seen and "bad" not in seen for seen in outcomes.values())
print(f"\n{passed} passed, {failed} failed")
sys.exit(failed > 0 or passed == 0)
E2
