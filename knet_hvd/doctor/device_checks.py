"""From facts about torch, kernels, GPUs and memory to findings."""

from knet_hvd.doctor.facts import CodecFacts, Facts, MachineFacts
from knet_hvd.doctor.findings import Finding
from knet_hvd.doctor.mpi_checks import BUILD_HOROVOD

_SMALL_SHM_BYTES = 256 * 2**20
_SLOW_COPIES_GB_PER_S = 4.0
"""PCI Express 3.0 with 16 lanes carries about 12."""


def check_torch(facts: Facts, num_local: int) -> Finding:
    """Judge torch's build and its threads."""
    torch, num_cores = facts.torch, facts.machine.num_cores
    build = f"built for CUDA {torch.cuda}" if torch.cuda else "CPU build"
    found = f"{torch.version}, {build}, {torch.num_threads} threads on {num_cores} cores"
    if num_local > 1:
        found += f" shared by {num_local} ranks"
    if not torch.gloo:
        found += ", without Gloo"
    wanted = torch.num_threads * num_local
    if wanted > num_cores and torch.num_threads > 1:
        fitting = max(1, num_cores // num_local)
        return Finding(
            "torch",
            "warning",
            found,
            f"{wanted} threads fight for {num_cores} cores: set OMP_NUM_THREADS={fitting}",
        )
    return Finding("torch", "ok", found)


def check_gpu(facts: Facts) -> Finding:
    """Judge whether torch can compute on the GPUs that are there."""
    torch, num_driver_gpus = facts.torch, facts.machine.num_driver_gpus
    if not torch.gpus:
        if not num_driver_gpus:
            return Finding("GPU", "ok", "none: jobs train on processors")
        reason = "torch is a CPU build" if not torch.cuda else "torch sees none of them"
        return Finding(
            "GPU",
            "warning",
            f"{num_driver_gpus} in the machine, but {reason}",
            "install a torch with CUDA, see pytorch.org"
            if not torch.cuda
            else "look at CUDA_VISIBLE_DEVICES, the job's GPUs, and the driver's version",
        )
    found = f"{len(torch.gpus)}, the first a {torch.gpus[0]}"
    if torch.gpu_error:
        return Finding(
            "GPU",
            "problem",
            f"{found}; torch fails on it: {torch.gpu_error}",
            "install a torch built for this GPU and for the driver's CUDA",
        )
    return Finding("GPU", "ok", found)


def check_gpu_copies(facts: Facts) -> Finding:
    """Judge how fast tensors move between memory and GPU, as they do between stages."""
    to_gpu, back = (1e-9 * rate for rate in facts.torch.gpu_copy_bytes_per_s)
    name = "copies to GPU"
    if not to_gpu or not back:
        return Finding(name, "ok", "not measured: no GPU that torch computes on")
    found = f"{to_gpu:.1f} GB/s to it, {back:.1f} GB/s back, from pinned memory"
    if min(to_gpu, back) < _SLOW_COPIES_GB_PER_S:
        return Finding(
            name,
            "warning",
            found,
            "look at the GPU's slot (nvidia-smi -q shows the link's width and generation), and at "
            "which processor's memory the ranks use",
        )
    return Finding(name, "ok", found)


def check_cuda_kernels(facts: Facts) -> Finding:
    """Judge the codec's CUDA kernels on this GPU."""
    name, codec = "codec on GPU", facts.codec
    if not facts.torch.gpus:
        return Finding(name, "ok", "not needed: torch uses no GPU")
    build = "KNET_CUDA=on pip install --no-build-isolation --force-reinstall ."
    if codec.cuda != "cuda":
        return Finding(
            name,
            "warning",
            "slow: the PyTorch kernels, CUDA ones were not built",
            f"with nvcc in PATH: {build}",
        )
    if codec.cuda_error:
        return Finding(
            name,
            "problem",
            f"the CUDA kernels fail: {codec.cuda_error}",
            f"build them on a node with this GPU (CUDAARCHS names others): {build}",
        )
    return Finding(name, "ok", "CUDA kernels, the same codes as the processor's")


def check_nccl(facts: Facts) -> Finding:
    """Judge whether GPUs exchange without a detour."""
    if not facts.torch.gpus:
        return Finding("NCCL", "ok", "not needed: torch uses no GPU")
    if facts.horovod.error or "nccl" in facts.horovod.features:
        return Finding("NCCL", "ok", "Horovod uses it" * (not facts.horovod.error))
    build = (
        "with nvcc in PATH and CUDA_HOME set, build it again with HOROVOD_GPU_OPERATIONS=NCCL "
        f"and without a cached wheel: {BUILD_HOROVOD}"
    )
    if "cuda" not in facts.horovod.features:
        return Finding(
            "NCCL",
            "problem",
            "Horovod was built without GPU support: CUDA gradients would abort the job",
            build,
        )
    return Finding(
        "NCCL",
        "warning",
        "Horovod was built without: gradients pass through memory",
        build,
    )


def check_codec(codec: CodecFacts) -> Finding:
    """Judge the codec's kernels for the processor."""
    name = "codec on CPU"
    if codec.error:
        return Finding(
            name,
            "problem",
            f"does not run: {codec.error}",
            "unset KNET_CPU, or name kernels that this processor runs",
        )
    if codec.cpu == "pytorch":
        return Finding(
            name,
            "warning",
            "slow: the PyTorch kernels, the native ones are not there",
            "unset KNET_EXT, then: pip install --no-build-isolation . (needs g++)",
        )
    best = {"avx512f": "avx512", "avx2": "avx2"}
    fastest = next((best[flag] for flag in best if flag in codec.flags), "portable")
    found = f"{codec.cpu} kernels"
    if fastest in ("avx2", "avx512") and codec.cpu == "portable":
        return Finding(
            name,
            "warning",
            f"{found}, though the processor has {fastest}",
            "unset KNET_CPU; if it is not set, compile again with a newer g++",
        )
    return Finding(name, "ok", found)


def check_memory(facts: Facts, num_local: int) -> Finding:
    """Judge shared and locked memory, with which ranks exchange."""
    name, machine = "memory", facts.machine
    shm = f"/dev/shm has {machine.shm_bytes / 2**20:.0f} MiB"
    if machine.shm_bytes < _SMALL_SHM_BYTES and num_local > 1:
        return Finding(
            name,
            "warning",
            f"{shm} for {num_local} ranks",
            "give it 256 MiB or more (docker run --shm-size=1g); without, jobs may "
            "stop with 'bus error'",
        )
    if machine.has_infiniband and machine.locked_bytes >= 0:
        return Finding(
            name,
            "warning",
            f"only {machine.locked_bytes / 1024:.0f} KiB may be locked, and there is InfiniBand",
            "have the administrator set 'ulimit -l unlimited' for users and for slurmd",
        )
    limit = "unlimited" if machine.locked_bytes < 0 else "limited"
    return Finding(name, "ok", f"{shm}, locked memory is {limit}")


def check_leftovers(machine: MachineFacts) -> Finding:
    """Judge whether killed jobs have left shared memory."""
    name, found = "leftovers", machine.leftovers
    if not found:
        return Finding(name, "ok", "no shared memory of jobs that were killed")
    kind = found[0].split(".")[0]
    return Finding(
        name,
        "warning",
        f"{len(found)} segments of ended Open MPI jobs in /dev/shm, the first {found[0]}",
        f"while no job of yours runs there, remove them: rm /dev/shm/{kind}.*",
    )
