"""What a data-parallel job is made of between two steps, as trees for a checkpoint."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor, nn

from knet_hvd.checkpoint import StateTree, snapshot
from knet_hvd.data_parallel.optimizer.averaging import AveragingOptimizer
from knet_hvd.errors import CheckpointError, KnetError
from knet_hvd.training.ema import ParameterEma


@dataclass(slots=True, eq=False)
class JobState:
    """Capture and restore the state of one rank.

    Rank 0's shard holds what is the same on all ranks, under ``model``, ``optimizer``
    and ``average``; every rank's holds what is its own: buffers (batch statistics),
    residuals and counters of the codec, random numbers.

    Attributes:
        model: Being trained.
        optimizer: Of ``make_optimizer``.
        average: The moving average of the parameters.
        seed: The job's seed.
        loss: Of this rank's latest batch.
        before_capture: Called whenever the state is captured.
    """

    model: nn.Module
    optimizer: AveragingOptimizer
    average: ParameterEma
    seed: int
    loss: Tensor = field(default_factory=lambda: torch.zeros(()))
    before_capture: Callable[[], None] = lambda: None

    def capture(self, step: int, whole: bool = False) -> StateTree:
        """Return this rank's shard; nothing of it changes with the next step.

        Args:
            step: Steps made so far.
            whole: Whether it holds on every rank what rank 0's shard holds.

        Raises:
            KnetError: If training has diverged: good checkpoints shall not give way to
                useless ones.
        """
        check_finite(self.model, step)
        self.before_capture()
        shard: dict[str, Any] = {
            "random_state": torch.get_rng_state(),
            "compression": self.optimizer.compression_state_dict(),  # already copies
            "loss": self.loss.clone(),
        }
        if hvd.rank() and not whole:
            return shard | {"buffers": snapshot(dict(self.model.named_buffers()))}
        shared = {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.shadow,
        }
        return shard | snapshot(shared)

    def restore(self, shards: dict[int, StateTree], num_saved: int, step: int) -> None:
        """Bring this rank to the state that a checkpoint holds.

        With as many ranks as wrote it, bit for bit. With another number, every rank
        gets the mean of all residuals (so that what is still owed to the averaged
        gradient is preserved), the batch statistics of rank ``rank % num_saved``, and
        new random numbers for dropout.

        Args:
            shards: Those of ``shards_to_read`` by number.
            num_saved: Ranks of the job that wrote it.
            step: Of the checkpoint.

        Raises:
            CheckpointError: If names or shapes are not those of this model.
        """
        own = shards[hvd.rank() % num_saved]
        try:
            self.model.load_state_dict(shards[0]["model"])
            self._load_buffers(own.get("buffers", {}))
            self.optimizer.load_state_dict(shards[0]["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            text = " ".join(str(error).split())
            raise CheckpointError(f"the checkpoint is of another model: {text}") from (error)
        self.loss = own["loss"]
        self.average.shadow = dict(shards[0]["average"])
        if num_saved == hvd.size():
            torch.set_rng_state(own["random_state"])
            self.optimizer.load_compression_state_dict(own["compression"])
            return
        torch.manual_seed(_new_seed(self.seed, step, hvd.rank(), hvd.size()))
        states = [shards[index]["compression"] for index in range(num_saved)]
        self.optimizer.load_compression_state_dict(merge_compression_states(states, step))

    @torch.no_grad()
    def _load_buffers(self, saved: dict[str, Tensor]) -> None:
        buffers = dict(self.model.named_buffers())
        for name, value in saved.items():
            buffers[name].copy_(value)


def check_finite(model: nn.Module, step: int) -> None:
    """Stop a run that has diverged; parameters are the same on all ranks.

    Args:
        model: Being trained.
        step: Steps made so far.

    Raises:
        KnetError: If a parameter is infinite or NaN.
    """
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise KnetError(
                f"training diverged before step {step}: {name} is not finite; lower --learning-rate"
            )


def shards_to_read(num_saved: int) -> list[int]:
    """Return which shards of a checkpoint this rank needs.

    Args:
        num_saved: Ranks of the job that wrote it.
    """
    if num_saved == hvd.size():
        return sorted({0, hvd.rank()})
    return list(range(num_saved))  # for the mean of their residuals


def _new_seed(*facts: int) -> int:
    """Return a seed that no other step, rank or number of ranks has."""
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def merge_compression_states(states: Sequence[dict[str, Any]], step: int) -> dict[str, Any]:
    """Return the codec's state for every rank of a job with another number of ranks.

    Args:
        states: Of all ranks that wrote the checkpoint, in their order.
        step: Steps made so far, from which the codec's random numbers go on.

    Returns:
        Rank 0's, but with the mean over ranks of each residual: the averaged gradient
        takes in the mean over ranks of gradient + residual, which stays the same.
    """
    merged = dict(states[0]) or {"step": step}  # nothing was compressed until now
    residuals = [state.get("residuals", {}) for state in states]
    names = dict.fromkeys(name for each in residuals for name in each)
    merged["residuals"] = {name: _mean([each.get(name) for each in residuals]) for name in names}
    if "step" in merged:  # one rank alone does not count steps: it sends no codes
        merged["step"] = step
    return merged


def _mean(residuals: Sequence[Tensor | None]) -> Tensor:
    """Return the mean in fp64 precision, fp32; a missing residual is zero."""
    present = [residual for residual in residuals if residual is not None]
    total = torch.zeros(present[0].shape, dtype=torch.float64)
    for residual in present:
        total += residual
    return (total / len(residuals)).to(torch.float32)
