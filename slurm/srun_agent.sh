#!/usr/bin/env bash
# Stands in for ssh where mpirun starts its daemons on the nodes of a heterogeneous job: srun needs no
# keys and stays within the allocation. mpirun calls it as it would call ssh:
#
#   srun_agent.sh HOST WORDS...    the words are one line for the shell of that host
set -euo pipefail
host=$1
shift
for ((group = 0; group < SLURM_HET_SIZE; group++)); do
  nodes=SLURM_JOB_NODELIST_HET_GROUP_$group
  if scontrol show hostnames "${!nodes}" | grep -qxF "$host"; then
    tasks=SLURM_NTASKS_PER_NODE_HET_GROUP_$group cpus=SLURM_CPUS_PER_TASK_HET_GROUP_$group
    export OMP_NUM_THREADS=${!cpus:-1} # components differ
    # The daemon is one task to Slurm, but its ranks need all their processors.
    exec srun --het-group="$group" --nodelist="$host" --nodes=1 --ntasks=1 --overlap \
      --cpus-per-task=$((${!tasks:-1} * OMP_NUM_THREADS)) bash -c "$*"
  fi
done
echo "srun_agent: node $host is in no component of job $SLURM_JOB_ID" >&2
exit 1
