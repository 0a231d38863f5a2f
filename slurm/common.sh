# shellcheck shell=bash
# What the job scripts share: the checks before a job starts, and starting its ranks.

# die MESSAGE: end the job with one line that says why.
die() {
  echo "$SLURM_JOB_NAME: $1" >&2
  exit 1
}

# set_up: activate the software and check that python and the launcher are there.
set_up() {
  if [[ -n $KNET_VENV ]]; then
    [[ -r $KNET_VENV/bin/activate ]] ||
      die "no virtual environment in $KNET_VENV: run 'make setup', or edit KNET_VENV in slurm/env.sh"
    # shellcheck source=/dev/null
    . "$KNET_VENV/bin/activate"
  fi
  command -v python >/dev/null || die "no python in PATH: load its module in slurm/env.sh"
  export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_PER_TASK_HET_GROUP_0:-1}}
  export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
}

# check_job [NUM_NODES]: end early where the job could not run: launcher, MPI on each node, network, data.
# Sets `results`, the folder for what the job leaves, and `data`, its flags of the data set.
check_job() {
  local found num_nodes=${1:-$SLURM_JOB_NUM_NODES} status launch_within=$KNET_START_LIMIT_S
  ((KNET_GPUS_PER_NODE <= ${SLURM_GPUS_ON_NODE:-0})) ||
    die "$KNET_GPUS_PER_NODE GPUs on each node were wanted, and Slurm gave ${SLURM_GPUS_ON_NODE:-none}: source slurm/env.sh before sbatch, or edit KNET_GPUS_PER_NODE in it"
  ((KNET_GPUS_PER_NODE == 0 || KNET_GPUS_PER_NODE >= ${SLURM_NTASKS_PER_NODE:-1})) ||
    die "$SLURM_NTASKS_PER_NODE ranks on each node need a GPU each, and KNET_GPUS_PER_NODE is $KNET_GPUS_PER_NODE: edit slurm/env.sh"
  case $KNET_LAUNCHER in
    mpirun | srun) ;;
    *) die "KNET_LAUNCHER is mpirun or srun, not '$KNET_LAUNCHER': edit slurm/env.sh" ;;
  esac
  command -v "$KNET_LAUNCHER" >/dev/null || die "no $KNET_LAUNCHER in PATH: load MPI's module in slurm/env.sh"
  [[ $KNET_DATA != mnist && $KNET_DATA != cifar10 || -n $KNET_DATA_DIR ]] ||
    die "data set $KNET_DATA is read from files: name their folder as KNET_DATA_DIR in slurm/env.sh"
  python -c 'import mpi4py, torch, knet_hvd' 2>/dev/null ||
    die "python cannot import torch, mpi4py and knet_hvd: 'python -m knet_hvd doctor' tells why"
  data=(--data "$KNET_DATA")
  if [[ -n $KNET_DATA_DIR ]]; then data+=(--data-dir "$KNET_DATA_DIR"); fi
  results=$KNET_RUNS/$SLURM_JOB_NAME-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
  mkdir -p "$results" 2>/dev/null || die "results cannot be written to $results: edit KNET_RUNS in slurm/env.sh"
  check_nodes || check_nodes || die "$KNET_LAUNCHER did not start the ranks within $launch_within s, twice: see docs/slurm.md"
  launch_within=
  ((status == 0)) || die "$(first_reason "$found")"
  found=$(grep '^node .* is ready' <<<"$found" | sort -u | wc -l) || true
  ((found == num_nodes)) ||
    die "$KNET_LAUNCHER started ranks on $found of $num_nodes nodes: does its MPI know Slurm? See docs/slurm.md"
}

# check_nodes: check every node, for check_job; fail if the launcher hangs. It is asked twice, since mpirun was
# seen to hang once in about fifty starts where several jobs share a machine; why is not known.
check_nodes() {
  status=0
  found=$(launch bash slurm/check_node.sh "$KNET_INTERFACE" "$KNET_DATA_DIR" 2>&1) || status=$?
  ((status != 124 && status != 137))
}

# first_reason TEXT: the line of a failed check, or what the launcher itself said first.
first_reason() {
  grep -m 1 '^node .*: ' <<<"$1" || echo "$KNET_LAUNCHER does not start ranks: $(grep -m 1 '[[:alpha:]]' <<<"$1")"
}

# train COMMAND...: launch a job that keeps checkpoints. USR1, which Slurm sends before the time limit, makes it
# save its state and exit with 75; it is then put back into the queue, and continues from there.
train() {
  local pid stopping='' status=0
  launch_replaces_shell=1
  launch "$@" &
  pid=$!
  trap 'stopping=1; kill -USR1 "$pid" 2>/dev/null || true' USR1
  wait "$pid" || status=$?
  if [[ -n $stopping ]]; then # the first wait returned when the signal came
    status=0
    wait "$pid" || status=$?
  fi
  if ((status == 75)); then
    scontrol requeue "$SLURM_JOB_ID" || die "the state is saved, but Slurm does not requeue the job: submit it with --requeue"
  fi
  return "$status"
}

# launch COMMAND...: run it on every rank of the allocation, which for a heterogeneous job are all components;
# for `launch_within` seconds at most, if that is set; in place of this shell, if `launch_replaces_shell` is.
launch() {
  local flags=(--bind-to none) limit=()
  if [[ -n ${launch_replaces_shell:-} ]]; then limit=(exec); fi
  if [[ -n ${launch_within:-} ]]; then limit=(timeout --kill-after=10 "$launch_within"); fi
  if [[ $KNET_LAUNCHER == srun ]]; then
    flags=("--mpi=$KNET_SRUN_MPI" --kill-on-bad-exit=1)
    if [[ -n ${SLURM_HET_SIZE:-} ]]; then flags+=("--het-group=0-$((SLURM_HET_SIZE - 1))"); fi
    export SRUN_CPUS_PER_TASK=$OMP_NUM_THREADS # srun does not take it over from sbatch
    if [[ -n $KNET_INTERFACE ]]; then export OMPI_MCA_btl_tcp_if_include=$KNET_INTERFACE; fi
    "${limit[@]}" srun "${flags[@]}" "$@"
    return
  fi
  if [[ -n $KNET_INTERFACE ]]; then flags+=(--mca btl_tcp_if_include "$KNET_INTERFACE"); fi
  if [[ -n ${SLURM_HET_SIZE:-} ]]; then
    # Open MPI sees the first component only, so it is told of all nodes and how to reach them.
    het_hosts >"$results/hosts"
    flags+=(--prtemca ras ^slurm --prtemca plm ssh --prtemca plm_ssh_agent "$PWD/slurm/srun_agent.sh")
    flags+=(--prtemca plm_ssh_no_tree_spawn 1 --leave-session-attached --hostfile "$results/hosts")
  fi
  "${limit[@]}" mpirun "${flags[@]}" "$@"
}

# het_hosts: every node of all components with its ranks, as a host file.
het_hosts() {
  local group nodes tasks host
  for ((group = 0; group < SLURM_HET_SIZE; group++)); do
    nodes=SLURM_JOB_NODELIST_HET_GROUP_$group tasks=SLURM_NTASKS_PER_NODE_HET_GROUP_$group
    while read -r host; do
      echo "$host slots=${!tasks:-1}"
    done < <(scontrol show hostnames "${!nodes}")
  done
}

# free_port [PORT]: print the port, or the first free one from 6006 on; fail if it is in use.
free_port() {
  local port ports=("$@")
  (($# > 0)) || mapfile -t ports < <(seq 6006 6105)
  for port in "${ports[@]}"; do
    # Bash connects where a server listens.
    if ! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  return 1
}
