#!/usr/bin/env bash
# Checks the node that it runs on, once for each rank; the other scripts start it.
#
#   bash slurm/check_node.sh INTERFACE DATA_DIR    empty: not needed
set -euo pipefail
node=${SLURMD_NODENAME:-$(hostname)}

die() {
  echo "node $node: $1"
  exit 1
}

[[ -z $1 || -d /sys/class/net/$1 ]] || die "no network interface $1: edit KNET_INTERFACE in slurm/env.sh"
[[ -z $2 || (-d $2 && -r $2) ]] || die "no data folder $2: edit KNET_DATA_DIR in slurm/env.sh"
echo "node $node is ready"
