"""Targets where only the first stage has data: they travel from stage to stage."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from knet_hvd.comm import Mesh, World
from knet_hvd.comm.links.probed import ProbedLink

_TAG = 7
_END = torch.zeros((), dtype=torch.uint8)
"""What follows the last batch of a loop; targets have at least one dimension."""


class SentTargets:
    """Carry the targets of each batch from the first stage to all others.

    A message says whether there is another batch, so that ranks without data know when a
    loop over batches is over.
    """

    def __init__(self, world: World, mesh: Mesh) -> None:
        """Open links to the stages before and after; every rank has to call."""
        before, after = mesh.previous(world.rank), mesh.next(world.rank)
        self._from = self._to = None
        if before is not None:
            self._from = ProbedLink(
                world, name="targets", source=before, target=world.rank, tag=_TAG
            )
        if after is not None:
            self._to = ProbedLink(world, name="targets", source=world.rank, target=after, tag=_TAG)
        self._number = 0
        self._waiting: Tensor | None = None

    def loop(self, batches: Iterable[Any] | None) -> Iterator[tuple[Any, Any]]:
        """Yield the batches on the first stage, and as many pairs of None on others.

        Args:
            batches: Inputs and targets; looked at on the first stage only.

        Raises:
            KnetError: If a neighbor is lost.
            ValueError: If the first stage has no batches.
        """
        if self._from is None:
            if batches is None:
                raise ValueError("batches: expected a loader on the first stage, got None")
            for inputs, targets in batches:
                yield inputs, targets
            self._pass_on(_END)
            return
        while (targets := self._receive()).dim():
            self._waiting = targets
            yield None, None
        self._pass_on(targets)

    def of_batch(self, targets: Tensor | None) -> Tensor:
        """Return the targets of the next batch, and send them to the next stage.

        Args:
            targets: Looked at on the first stage only.

        Raises:
            KnetError: If a neighbor is lost, or has no further batch.
            ValueError: If the first stage has none.
        """
        if self._from is None:
            if targets is None:
                raise ValueError("targets: expected a tensor on the first stage, got None")
            found = targets
        else:
            found = self._receive() if self._waiting is None else self._waiting
            self._waiting = None
            if not found.dim():
                raise ValueError(
                    "step: expected a batch from the first stage, got the end of its "
                    "loop: write `for inputs, targets in pipeline.batches(loader)`"
                )
        self._pass_on(found)
        return found

    def _receive(self) -> Tensor:
        assert self._from is not None
        (targets,) = self._from.receive(self._number)
        return targets

    def _pass_on(self, targets: Tensor) -> None:
        if self._to is not None:
            self._to.send([targets], self._number)
        self._number += 1

    def close(self) -> None:
        """Wait until everything is sent."""
        for link in (self._from, self._to):
            if link is not None:
                link.close()
