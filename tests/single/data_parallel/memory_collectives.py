"""Collectives among ranks that are objects of one process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from knet_hvd.collectives import Collectives

Combine = Callable[[list[Tensor]], Tensor]


@dataclass
class Operation:
    """What ranks have sent under one name, and how many have taken the result."""

    sent: dict[int, Tensor] = field(default_factory=dict)
    taken: int = 0


class Network:
    """Join ranks; an operation ends when all of them have started it."""

    def __init__(self, num_ranks: int) -> None:
        self.num_ranks = num_ranks
        self.operations: dict[str, Operation] = {}
        self.num_bytes = 0
        self.gathered_sizes: list[Sequence[int]] = []

    def ranks(self) -> list["MemoryCollectives"]:
        return [MemoryCollectives(self, rank) for rank in range(self.num_ranks)]


@dataclass
class Pending:
    network: Network
    name: str
    combine: Combine

    def poll(self) -> bool:
        return len(self.network.operations[self.name].sent) == self.network.num_ranks

    def wait(self) -> Tensor:
        assert self.poll(), f"{self.name}: a rank would wait for ever"
        operation = self.network.operations[self.name]
        result = self.combine([operation.sent[r] for r in range(self.network.num_ranks)])
        operation.taken += 1
        if operation.taken == self.network.num_ranks:
            del self.network.operations[self.name]
        return result


class MemoryCollectives(Collectives):
    """Implement ``Collectives`` for one of a network's ranks; checks every size."""

    def __init__(self, network: Network, rank: int) -> None:
        self.network = network
        self._rank = rank

    @property
    def ranks(self) -> Sequence[int]:
        return range(self.network.num_ranks)

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def fusion_bytes(self) -> int:
        return 0

    def check_device(self, device: torch.device) -> None:
        assert device.type == "cpu"

    def _start(self, values: Tensor, name: str, combine: Combine) -> Pending:
        operation = self.network.operations.setdefault(name, Operation())
        assert self.rank not in operation.sent, f"{name} was started twice"
        operation.sent[self.rank] = values.clone()
        return Pending(self.network, name, combine)

    def maximum(self, values: Tensor, name: str) -> Pending:
        return self._start(values, name, lambda sent: torch.stack(sent).amax(0))

    def sum(self, values: Tensor, name: str) -> Pending:
        return self._start(values, name, lambda sent: torch.stack(sent).sum(0, dtype=values.dtype))

    def mean(self, values: Tensor, name: str) -> Pending:
        return self._start(values, name, lambda sent: torch.stack(sent).mean(0))

    def all_gather(self, values: Tensor, sizes: Sequence[int], name: str) -> Pending:
        def combine(sent: list[Tensor]) -> Tensor:
            assert [each.numel() for each in sent] == list(sizes)
            return torch.cat(sent)

        self.network.num_bytes += values.nbytes * (self.size - 1)
        self.network.gathered_sizes.append(sizes)
        return self._start(values, name, combine)

    def all_to_all(
        self, values: Tensor, send_sizes: Sequence[int], receive_sizes: Sequence[int], name: str
    ) -> Pending:
        assert sum(send_sizes) == values.numel()
        first, count = sum(send_sizes[: self.rank]), send_sizes[self.rank]

        def combine(sent: list[Tensor]) -> Tensor:
            parts = [each[first : first + count] for each in sent]
            assert [part.numel() for part in parts] == list(receive_sizes)
            return torch.cat(parts)

        self.network.num_bytes += values.nbytes - count * values.element_size()
        return self._start(values, name, combine)
