#!/usr/bin/env bash
# Checks the node that it runs on, once for each rank; the other scripts start it.
#
#   bash slurm/check_node.sh INTERFACE NUM_GPUS DATA_DIR    empty or 0: not needed
set -euo pipefail
node=${SLURMD_NODENAME:-$(hostname)}

die() {
  echo "node $node: $1"
  exit 1
}

[[ -z $1 || -d /sys/class/net/$1 ]] || die "no network interface $1: edit KNET_INTERFACE in slurm/env.sh"
if (($2 > 0)); then
  command -v nvidia-smi >/dev/null || die "$2 GPUs are needed, but there is no nvidia-smi: edit KNET_GPUS_PER_NODE"
  found=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU') || true
  ((found >= $2)) || die "$2 GPUs are needed, $found are visible: edit KNET_GPUS_PER_NODE in slurm/env.sh"
fi
[[ -z $3 || (-d $3 && -r $3) ]] || die "no data folder $3: edit KNET_DATA_DIR in slurm/env.sh"
echo "node $node is ready"
