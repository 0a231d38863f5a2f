# shellcheck shell=bash
# Sourced by the scripts beside it: run one long step with a sign of life, and explain it if it fails.

# On a terminal one line is rewritten in place; in a log file a line now and then is enough.
_show_progress() {
  local log=$1 start=$SECONDS seconds news next_line_s=30
  # The parent is watched because Ctrl-C does not reach a background job. No output for sleep: it may
  # outlive this by a second, and must not keep a pipe open.
  while sleep 1 >/dev/null 2>&1 && kill -0 "$$" 2>/dev/null; do
    seconds=$((SECONDS - start))
    # CMake's percentages if there are any, else whatever pip is busy with.
    news=$(grep -oE '^ *\[ *[0-9]+%\]' "$log" | tail -n 1) || news=$(grep -v '^WARNING' "$log" | tail -n 1) || true
    if [[ -t 1 ]]; then
      printf '\r      %4d s  %-60.60s' "$seconds" "${news//[[:cntrl:]]/}"
    elif ((seconds >= next_line_s)); then
      next_line_s=$((next_line_s + 30))
      printf '      still running: %d s  %.60s\n' "$seconds" "$news"
    fi
  done
}

# run_logged LOG REMEDY COMMAND...
run_logged() {
  local log=$1 remedy=$2 monitor status=0
  shift 2
  : >"$log"
  _show_progress "$log" 9>&- & # 9 is the lock of setup.sh, which its last sleep must not hold
  monitor=$!
  "$@" >"$log" 2>&1 || status=$?
  kill "$monitor" 2>/dev/null || true
  wait "$monitor" 2>/dev/null || true
  [[ -t 1 ]] && printf '\r%75s\r' ''
  ((status == 0)) && return 0
  fail_step "$*" "$log" "$remedy"
  return "$status"
}

# fail_step WHAT LOG REMEDY. The cause is often far above the last lines: pip and CMake add their own.
fail_step() {
  {
    printf '\nFAILED: %s\n' "$1"
    if grep -qE 'rror: |CMake Error' "$2"; then
      printf 'The first error in its log (%s):\n' "$2"
      grep -m 1 -A 4 -E 'rror: |CMake Error' "$2" | cut -c 1-200 | sed 's/^/    /'
    fi
    printf 'The last lines of its log (%s):\n' "$2"
    tail -n 10 "$2" | cut -c 1-200 | sed 's/^/    /'
    printf 'What to do: %s\n' "$3"
  } >&2
}

# die MESSAGE
die() {
  printf '%s\n' "$*" >&2
  exit 1
}
