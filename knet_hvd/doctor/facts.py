"""What is measured of this process and its machine before anything is judged."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MpiFacts:
    """Describe MPI as mpi4py sees it.

    Attributes:
        error: Why MPI cannot be used; empty if it can, else nothing below counts.
        library: The first line of the library's own version.
        threads: ``"multiple"``, ``"serialized"``, ``"funneled"`` or ``"single"``.
        loaded: Paths of all MPI libraries in this process.
        num_ranks: Ranks of MPI's world.
        launched: Ranks that the launcher says it has started; 1 without launcher.
        by_gloo: Whether horovodrun has started this process, without MPI.
    """

    error: str = ""
    library: str = ""
    threads: str = ""
    loaded: tuple[str, ...] = ()
    num_ranks: int = 1
    launched: int = 1
    by_gloo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HorovodFacts:
    """Describe the installed Horovod.

    Attributes:
        error: Why it cannot be used; empty if it can, else nothing below counts.
        version: Of the package.
        features: What it was built with, of mpi, gloo, nccl and cuda.
        mpi_threads: Whether it says that MPI may be called from several threads; None
            if it runs without MPI.
    """

    error: str = ""
    version: str = ""
    features: tuple[str, ...] = ()
    mpi_threads: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFacts:
    """Describe the installed torch.

    Attributes:
        version: Of the package.
        cuda: Version of CUDA it was built for; empty for a CPU build.
        gloo: Whether torch.distributed has Gloo.
        num_threads: Threads of an operation.
        gpus: Names of the visible GPUs.
        gpu_error: Why torch cannot compute on the first one; empty if it can.
        gpu_copy_bytes_per_s: From pinned memory to that GPU, and back; 0 if not measured.
    """

    version: str
    cuda: str = ""
    gloo: bool = True
    num_threads: int = 1
    gpus: tuple[str, ...] = ()
    gpu_error: str = ""
    gpu_copy_bytes_per_s: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecFacts:
    """Describe the kernels of the codec.

    Attributes:
        cpu: Kernels for the processor, as ``ops.backend`` names them.
        cuda: The same for GPUs.
        error: Why the codec does not run here; empty if it does.
        cuda_error: Why its CUDA kernels do not give the right codes on this GPU; empty
            if they do, or were not tried.
        flags: Vector instructions of the processor, of avx2 and avx512f.
    """

    cpu: str = "pytorch"
    cuda: str = "pytorch"
    error: str = ""
    cuda_error: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """Describe the machine and what this process may take of it.

    Attributes:
        host: Its name.
        num_cores: Cores that this process may use.
        num_driver_gpus: GPUs that NVIDIA's driver knows, whatever torch can do.
        shm_bytes: Size of /dev/shm; 0 if there is none.
        locked_bytes: Memory that may be locked; -1 for no limit.
        has_infiniband: Whether there is an InfiniBand or RoCE adapter.
        leftovers: This user's files of Open MPI in /dev/shm that no process has mapped.
        root_is_refused: Whether ``mpirun`` does not start for this user, who is root.
    """

    host: str
    num_cores: int
    num_driver_gpus: int = 0
    shm_bytes: int = 0
    locked_bytes: int = -1
    has_infiniband: bool = False
    leftovers: tuple[str, ...] = ()
    root_is_refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Hold all that is known of one rank."""

    mpi: MpiFacts
    horovod: HorovodFacts
    torch: TorchFacts
    codec: CodecFacts
    machine: MachineFacts
