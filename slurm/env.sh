# shellcheck shell=bash disable=SC2034  # others read what is set here
# All that a site edits. Source it before sbatch, which then knows partition and account; the jobs source
# it again on the nodes. A value that is set already wins: `KNET_DATA=cifar10 sbatch slurm/pipeline.sbatch`.

# Software: modules, or a virtual environment (none: what PATH holds).
# module load python cuda openmpi
KNET_VENV=${KNET_VENV-.venv}

# The queue; empty for the site's default.
KNET_PARTITION=${KNET_PARTITION-}
KNET_ACCOUNT=${KNET_ACCOUNT-}

# GPUs that a job asks for on each node, at least one for each rank there: each takes that of its number. 0: jobs
# train on processors.
KNET_GPUS_PER_NODE=${KNET_GPUS_PER_NODE-0}

# Network interface for MPI's TCP, as `ip link` on a node lists it; empty: MPI chooses, and takes InfiniBand itself.
KNET_INTERFACE=${KNET_INTERFACE-}

# What starts the ranks: mpirun, or srun with the plugin that `srun --mpi=list` names.
KNET_LAUNCHER=${KNET_LAUNCHER-mpirun}
KNET_SRUN_MPI=${KNET_SRUN_MPI-pmix}

# Seconds that starting ranks on all nodes may take before a job gives up.
KNET_START_LIMIT_S=${KNET_START_LIMIT_S-120}

# The data set, and the folder of its files, which all nodes see; digits needs none. A data set of your own is a
# function, as package.module:function.
KNET_DATA=${KNET_DATA-digits}
KNET_DATA_DIR=${KNET_DATA_DIR-}

# Where jobs write results and curves; all nodes see it.
KNET_RUNS=${KNET_RUNS-runs}

# sbatch reads these where the script's own lines say nothing.
if [[ -n $KNET_PARTITION ]]; then export SBATCH_PARTITION=$KNET_PARTITION; fi
if ((KNET_GPUS_PER_NODE > 0)); then export SBATCH_GPUS_PER_NODE=$KNET_GPUS_PER_NODE; fi
if [[ -n $KNET_ACCOUNT ]]; then export SBATCH_ACCOUNT=$KNET_ACCOUNT; fi
