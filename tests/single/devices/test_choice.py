"""Which device a rank takes: launchers' variables, visible GPUs, and what goes wrong."""

import json
from types import SimpleNamespace

import pytest
import torch

from knet_hvd.devices import choose_device, take_device
from knet_hvd.errors import KnetError

LAUNCHERS = (
    *("OMPI_COMM_WORLD_LOCAL_RANK", "HOROVOD_LOCAL_RANK", "MPI_LOCALRANKID"),
    *("SLURM_LOCALID", "LOCAL_RANK"),
)


class Host:
    """A host with GPUs, seen by one of its ranks."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.taken: list[torch.device] = []
        patch.setattr(torch.cuda, "set_device", self.taken.append)
        self.show(0)
        for name in (*LAUNCHERS, "CUDA_VISIBLE_DEVICES"):
            patch.delenv(name, raising=False)

    def show(self, num_gpus: int, first: int = 0) -> None:
        def properties(device: torch.device) -> SimpleNamespace:
            return SimpleNamespace(name="A100", uuid=f"GPU-{first + (device.index or 0)}")

        self._patch.setattr(torch.cuda, "device_count", lambda: num_gpus)
        self._patch.setattr(torch.cuda, "get_device_properties", properties)

    def rank(self, number: int, launcher: str = LAUNCHERS[0]) -> None:
        self._patch.setenv(launcher, str(number))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_without_a_gpu_auto_is_the_cpu(host: Host) -> None:
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("choice", ["auto", "cuda"])
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_rank_takes_the_gpu_of_its_number_on_the_host(
    host: Host, launcher: str, choice: str
) -> None:
    host.show(4)
    host.rank(2, launcher)
    assert choose_device(choice) == torch.device("cuda", 2)
    assert choose_device("cpu") == torch.device("cpu")


def test_a_number_that_is_given_counts_and_not_that_of_the_environment(host: Host) -> None:
    """As in an elastic job, whose ranks are numbered again when one is lost."""
    host.show(4)
    host.rank(3, "HOROVOD_LOCAL_RANK")
    assert choose_device("auto", 1) == torch.device("cuda", 1)
    assert choose_device("auto") == torch.device("cuda", 3)


def test_a_rank_that_sees_one_gpu_takes_it_whatever_its_number(host: Host) -> None:
    """As Slurm shows each task its own, or a script sets CUDA_VISIBLE_DEVICES for each rank."""
    host.show(1)
    host.rank(3, "SLURM_LOCALID")
    assert choose_device("auto") == torch.device("cuda", 0)


def test_more_ranks_than_gpus_are_refused(host: Host) -> None:
    host.show(2)
    host.rank(2)
    with pytest.raises(KnetError, match=r"each of the 2 GPUs .* number on it is 2"):
        choose_device("auto")


def test_cuda_without_a_gpu_says_why(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(KnetError, match=r"got none: PyTorch .* is built without CUDA"):
        choose_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(KnetError, match="nvidia-smi"):
        choose_device("cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(KnetError, match="CUDA_VISIBLE_DEVICES=''"):
        choose_device("cuda")


def test_a_device_of_pytorch_is_taken_as_it_is(host: Host) -> None:
    host.show(2)
    assert choose_device("cuda:1") == choose_device(torch.device("cuda", 1))
    assert choose_device("meta") == torch.device("meta")
    with pytest.raises(KnetError, match="cuda:2: this rank sees 2 GPUs"):
        choose_device("cuda:2")
    with pytest.raises(ValueError, match="expected auto, cpu, cuda or a device of PyTorch's"):
        choose_device("gpu")


def texts_of(host: Host, *numbers: int) -> list[str]:
    """Return what ranks on one host tell each other."""
    texts: list[str] = []

    def gather(text: str, what: str) -> list[str]:
        texts.append(text)
        return [json.dumps({"error": "", "device": "cpu"})]

    for number in numbers:
        host.rank(number)
        take_device("auto", gather)
    return texts


def test_every_rank_knows_what_each_took(host: Host) -> None:
    host.show(2)
    texts = texts_of(host, 0, 1)
    taken = take_device("auto", lambda own, what: [*texts, '{"error": "", "device": "cpu"}'])
    assert taken.device == host.taken[-1] == torch.device("cuda", 1)
    assert taken.line.startswith("devices: rank 0 cuda:0 (A100) on ")
    assert taken.line.endswith("rank 2 cpu")
    host.show(0)
    assert take_device("auto", lambda own, what: [own]).line == "device: cpu"
    assert take_device("auto", lambda own, what: 4 * [own]).line == "device: cpu on all 4 ranks"


def test_two_ranks_on_one_gpu_are_refused_on_every_rank(host: Host) -> None:
    """Both see one GPU, and cannot know alone whether it is the same."""
    host.show(1)
    texts = texts_of(host, 0, 1)
    with pytest.raises(KnetError, match="at most one rank for each GPU, got ranks 0 and 1"):
        take_device("auto", lambda own, what: texts)
    host.show(1, first=7)
    other = texts_of(host, 1)
    take_device("auto", lambda own, what: [texts[0], *other])


def test_what_one_rank_lacks_every_rank_says(host: Host) -> None:
    error = json.dumps({"error": "device cuda: expected a GPU, got none"})
    with pytest.raises(KnetError, match=r"^rank 1: device cuda: expected a GPU"):
        take_device("cpu", lambda own, what: [own, error])
