#!/usr/bin/env bash
# Installs the Slurm that tests/slurm starts on loopback. Only where apt-get runs as root and Slurm is not there;
# elsewhere it says so, and those tests are skipped. No service is started.
set -euo pipefail

skip() {
  echo "install_slurm: $1"
  exit 0
}
export PATH="$PATH:/usr/sbin:/sbin"
command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null &&
  command -v sbatch >/dev/null && skip "Slurm is there"
((EUID == 0)) || skip "skipped: not root; the tests of slurm/ will be skipped"
command -v apt-get >/dev/null || skip "skipped: no apt-get; the tests of slurm/ will be skipped"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
install() { timeout 300 apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge; }
# The list of packages may be missing or old.
{ install || { timeout 300 apt-get update && install; }; } >"$log" 2>&1 || {
  tail -n 5 "$log"
  skip "skipped: apt-get could not install Slurm; the tests of slurm/ will be skipped"
}
skip "installed $(sbatch --version)"
