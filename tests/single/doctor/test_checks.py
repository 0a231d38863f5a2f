"""The doctor's verdicts, given facts; no defect has to be produced."""

import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from knet_hvd.doctor.checks import check_rank, check_versions
from knet_hvd.doctor.facts import (
    CodecFacts,
    Facts,
    HorovodFacts,
    MachineFacts,
    MpiFacts,
    TorchFacts,
)
from knet_hvd.doctor.findings import LEVELS, Finding, exit_code, merge
from knet_hvd.doctor.machine import find_leftovers

MIB = 2**20
HEALTHY = Facts(
    mpi=MpiFacts(
        library="Open MPI v5.0.11",
        threads="multiple",
        loaded=("/lib/libmpi.so.40",),
        num_ranks=2,
        launched=2,
    ),
    horovod=HorovodFacts(
        version="0.28.1", features=("mpi", "gloo", "nccl", "cuda"), mpi_threads=True
    ),
    torch=TorchFacts(
        version="2.13.0",
        cuda="13.0",
        num_threads=2,
        gpus=("H200",),
        gpu_copy_bytes_per_s=(50e9, 48e9),
    ),
    codec=CodecFacts(cpu="avx512", cuda="cuda", flags=("avx2", "avx512f")),
    machine=MachineFacts(host="n1", num_cores=4, num_driver_gpus=1, shm_bytes=1024 * MIB),
)
WITHOUT_GPU = replace(
    HEALTHY,
    torch=replace(HEALTHY.torch, cuda="", gpus=(), gpu_copy_bytes_per_s=(0.0, 0.0)),
    machine=replace(HEALTHY.machine, num_driver_gpus=0),
    codec=replace(HEALTHY.codec, cuda="pytorch"),
    horovod=replace(HEALTHY.horovod, features=("mpi", "gloo")),
)


def findings(facts: Facts, num_local: int = 2) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_rank(facts, num_local)}


@pytest.mark.parametrize("facts", [HEALTHY, WITHOUT_GPU], ids=["GPU", "no GPU"])
def test_a_healthy_rank_has_nothing_to_fix(facts: Facts) -> None:
    found = findings(facts).values()
    assert {finding.level for finding in found} == {"ok"}
    assert not any(finding.fix for finding in found)
    assert all(finding.found for finding in found)


DEFECTS: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("mpi", {"error": "cannot load MPI library"}, "MPI", "problem", "cannot load MPI"),
    ("mpi", {"num_ranks": 1}, "MPI", "problem", "each takes itself for the only one"),
    ("mpi", {"by_gloo": True}, "MPI", "warning", "horovodrun started Gloo"),
    ("mpi", {"threads": "serialized"}, "MPI threads", "problem", "serialized threads"),
    ("horovod", {"mpi_threads": False}, "MPI threads", "problem", "says it does not"),
    ("horovod", {"error": "no module"}, "Horovod", "problem", "no module"),
    ("horovod", {"features": ("gloo", "cuda")}, "Horovod", "warning", "built with gloo, cuda"),
    ("mpi", {"loaded": ("/a/libmpi.so", "/b/libmpi.so")}, "one MPI", "problem", "/b/"),
    ("torch", {"num_threads": 4}, "torch", "warning", "4 threads on 4 cores"),
    ("torch", {"gpus": ()}, "GPU", "warning", "torch sees none"),
    ("torch", {"gpus": (), "cuda": ""}, "GPU", "warning", "torch is a CPU build"),
    ("torch", {"gpu_error": "no kernel image"}, "GPU", "problem", "no kernel image"),
    ("torch", {"gpu_copy_bytes_per_s": (3e9, 12e9)}, "copies to GPU", "warning", "3.0 GB/s to it"),
    ("horovod", {"features": ("mpi", "cuda")}, "NCCL", "warning", "pass through memory"),
    ("horovod", {"features": ("mpi",)}, "NCCL", "problem", "CUDA gradients would abort the job"),
    ("machine", {"root_is_refused": True}, "user", "warning", "mpirun does not start"),
    ("machine", {"leftovers": ("sm_segment.n1.0.1",)}, "leftovers", "warning", "1 segments"),
    ("codec", {"error": "KNET_CPU=avx512"}, "codec on CPU", "problem", "KNET_CPU"),
    ("codec", {"cpu": "pytorch"}, "codec on CPU", "warning", "the PyTorch kernels"),
    ("codec", {"cpu": "portable"}, "codec on CPU", "warning", "processor has avx512"),
    ("codec", {"cuda": "pytorch"}, "codec on GPU", "warning", "were not built"),
    ("codec", {"cuda_error": "no image"}, "codec on GPU", "problem", "no image"),
    ("machine", {"shm_bytes": 64 * MIB}, "memory", "warning", "64 MiB for 2 ranks"),
    (
        "machine",
        {"has_infiniband": True, "locked_bytes": 65536},
        "memory",
        "warning",
        "only 64 KiB may be locked",
    ),
]


@pytest.mark.parametrize(("part", "change", "check", "level", "words"), DEFECTS)
def test_each_defect_is_found_and_explained(
    part: str, change: dict[str, Any], check: str, level: str, words: str
) -> None:
    facts = replace(HEALTHY, **{part: replace(getattr(HEALTHY, part), **change)})
    finding = findings(facts)[check]
    assert finding.level == level
    assert words in finding.found
    assert finding.fix
    assert exit_code(findings(facts).values()) == (level == "problem")


@pytest.mark.parametrize(
    ("part", "change", "check"),
    [
        ("machine", {"locked_bytes": 65536}, "memory"),
        ("codec", {"cpu": "portable", "flags": ()}, "codec on CPU"),
        ("codec", {"cpu": "avx2"}, "codec on CPU"),
    ],
)
def test_what_harms_nobody_is_no_warning(part: str, change: dict[str, Any], check: str) -> None:
    facts = replace(HEALTHY, **{part: replace(getattr(HEALTHY, part), **change)})
    assert findings(facts)[check].level == "ok"


def test_segments_that_a_process_has_mapped_are_not_left_over(tmp_path: Path) -> None:
    for name in ("sm_segment.n1.0.12ab.0", "sm_segment.n1.0.12ab.1", "psm_other"):
        (tmp_path / name).write_bytes(bytes(4096))
    with (tmp_path / "sm_segment.n1.0.12ab.1").open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 4096)
    assert find_leftovers(tmp_path) == ("sm_segment.n1.0.12ab.0",)
    mapped.close()
    assert len(find_leftovers(tmp_path)) == 2
    assert find_leftovers(tmp_path / "none") == ()


def test_threads_are_counted_for_all_ranks_of_a_machine() -> None:
    assert findings(HEALTHY, num_local=2)["torch"].level == "ok"
    crowded = findings(HEALTHY, num_local=4)["torch"]
    assert crowded.level == "warning"
    assert "OMP_NUM_THREADS=1" in crowded.fix


def test_all_checks_come_in_the_same_order_whatever_is_wrong() -> None:
    broken = replace(HEALTHY, mpi=MpiFacts(error="x"), horovod=HorovodFacts(error="y"))
    assert list(findings(broken)) == list(findings(HEALTHY))
    assert [LEVELS.index(f.level) for f in findings(broken).values()][:4] == [2, 0, 1, 2]


def test_equal_findings_of_ranks_become_one_and_others_name_their_ranks() -> None:
    fine, bad = Finding("GPU", "ok", "none"), Finding("GPU", "problem", "lost", "fix")
    assert merge([[fine], [fine]]) == [fine]
    assert merge([[fine], [bad], [fine]]) == [
        replace(fine, found="ranks 0, 2: none"),
        replace(bad, found="rank 1: lost"),
    ]


def test_a_rank_with_another_version_is_named() -> None:
    same = {"torch": "2.13.0", "python": "3.11"}
    assert check_versions([same, same]).level == "ok"
    finding = check_versions([same, same, same | {"torch": "2.4.0"}])
    assert finding.level == "problem"
    assert finding.found == "torch is 2.13.0 on rank 0, 2.4.0 on rank 2"
