"""The state of a data-parallel job on one rank, as a shard of a checkpoint."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from knet_hvd.checkpoint import StateTree
from knet_hvd.data_parallel.optimizer.averaging import AveragingOptimizer
from knet_hvd.data_parallel.ranks.checkpoint_ranks import HorovodRanks
from knet_hvd.devices.random_state import load_random_states
from knet_hvd.flat_config import Scalar
from knet_hvd.training.state.interfaces import JobState, SavedState
from knet_hvd.training.state.rank_state import RankState


class DataParallelState(JobState):
    """Capture and restore the state of one rank.

    Rank 0's shard holds what is the same on all ranks. Every rank's holds what is its own:
    batch statistics, residuals and counters of the codec, random numbers, the latest loss.

    Attributes:
        loss: Of this rank's latest batch.
    """

    def __init__(
        self,
        rank_state: RankState,
        optimizer: AveragingOptimizer,
        seed: int,
        details: dict[str, Scalar],
        *,
        whole: bool,
    ) -> None:
        """Take what is captured and restored.

        Args:
            rank_state: What both jobs have.
            optimizer: The same as there; knows what compression keeps.
            seed: The job's seed.
            details: For the manifest.
            whole: Whether every rank's shard holds what rank 0's holds, since any of them may
                be lost.
        """
        self.rank_state = rank_state
        self.ranks = HorovodRanks()
        self.shard = self.ranks.rank
        self.lag = 0
        self.details = details
        self.loss = torch.zeros(())
        self._optimizer = optimizer
        self._seed = seed
        self._whole = whole

    def capture(self, step: int) -> StateTree:
        """Return this rank's shard: see ``JobState``."""
        self.rank_state.check_finite(step)
        own = {
            "compression": self._optimizer.compression_state_dict(),  # already copies
            "loss": self.loss.to("cpu", copy=True),
        }
        return own | self.rank_state.capture(shared=self._whole or self.shard == 0)

    def restore(self, saved: SavedState) -> None:
        """Bring this rank to a state that was captured: see ``JobState``.

        With as many ranks as wrote it, bit for bit. With another number, every rank
        gets the mean of all residuals (so that what is still owed to the averaged
        gradient is preserved), the batch statistics of rank ``rank % num_ranks``, and
        new random numbers for dropout.
        """
        rank, num_ranks = self.ranks.rank, self.ranks.size
        own = saved.shards[rank % saved.num_ranks]
        self.rank_state.restore(own, saved.shards[0])
        self.loss = own["loss"]
        if saved.num_ranks == num_ranks:
            load_random_states(self.rank_state.device, own)
            self._optimizer.load_compression_state_dict(own["compression"])
            return
        torch.manual_seed(_new_seed(self._seed, saved.step, rank, num_ranks))
        states = [saved.shards[index]["compression"] for index in range(saved.num_ranks)]
        merged = merge_compression_states(states, saved.step)
        self._optimizer.load_compression_state_dict(merged)


def _new_seed(*facts: int) -> int:
    """Return a seed that no other step, rank or number of ranks has."""
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def merge_compression_states(states: Sequence[dict[str, Any]], step: int) -> dict[str, Any]:
    """Return the codec's state for every rank of a job with another number of ranks.

    Args:
        states: Of all ranks that wrote the checkpoint, in their order.
        step: Steps made so far, from which the codec's random numbers continue.

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
