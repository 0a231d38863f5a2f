"""What training takes of time and network, with evaluation left out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from knet_hvd.comm import World
from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.replicas.base import Replicas


class TrainingMeter:
    """Add up over all spans of training.

    Attributes:
        elapsed_s: Their time.
        idle_s: The part in which this rank waited for other ranks.
        waited_s: The part of that in which it waited for other replicas.
        sent_bytes: What it sent to other stages.
    """

    def __init__(self, world: World, replicas: Replicas, links: StageLinks) -> None:
        """Start with nothing.

        Args:
            world: Knows the time waited.
            replicas: Know theirs.
            links: Know the bytes.
        """
        self.elapsed_s = self.idle_s = self.waited_s = 0.0
        self.sent_bytes = 0
        self._waiter = world.waiter
        self._replicas = replicas
        self._links = links

    @contextmanager
    def training(self) -> Iterator[None]:
        """Count what happens within."""
        start_s = time.perf_counter()
        idle_s, waited_s = self._waiter.idle_s, self._replicas.waited_s
        sent_bytes = self._links.sent_bytes
        yield
        self.elapsed_s += time.perf_counter() - start_s
        self.idle_s += self._waiter.idle_s - idle_s
        self.waited_s += self._replicas.waited_s - waited_s
        self.sent_bytes += self._links.sent_bytes - sent_bytes
