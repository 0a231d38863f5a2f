#!/usr/bin/env bash
# Installs the Slurm that tests/slurm starts on loopback. Only where apt-get runs as root and Slurm is not there;
# elsewhere it says so, and those tests are skipped. Debian's packages enable and start services on installation:
# those of the packages that this script installed are kept from starting, and disabled, also after a restart.
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
# Debian asks this program before a package starts a service; 101 forbids it. One that is there is left alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$log" "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
new=()
for package in slurmctld slurmd munge; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || new+=("$package")
done
disable() {
  local service
  for service in "${new[@]}"; do
    if command -v systemctl >/dev/null; then systemctl disable "$service" || true; fi
    if command -v update-rc.d >/dev/null; then update-rc.d "$service" disable || true; fi
  done
}
install() { timeout 300 apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge; }
# The list of packages may be missing or old.
{ install || { timeout 300 apt-get update && install; }; } >"$log" 2>&1 || {
  tail -n 5 "$log"
  skip "skipped: apt-get could not install Slurm; the tests of slurm/ will be skipped"
}
disable >>"$log" 2>&1
skip "installed $(sbatch --version)"
