"""Finds work on two CUDA streams that nothing orders, without a GPU.

Tensors lie on the CPU and everything runs at once, but each operation counts as queued on
the stream that is current. Streams keep vector clocks (Lamport, 1978): an operation may
touch memory only after every write, and write only after every use, that another stream
has queued before. Memory may be freed while another stream uses it only if that stream is
waited for or was recorded.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.single.data_parallel.memory_collectives import (
    Combine,
    MemoryCollectives,
    Network,
    Pending,
)

Clock = dict[str, int]
"""Operations of each stream that are known to have ended."""


def merge(clock: Clock, other: Mapping[str, int]) -> None:
    for name, count in other.items():
        clock[name] = max(clock.get(name, 0), count)


@dataclass
class Memory:
    """Who allocated a block, and the last operation of each stream that touched it."""

    owner: str
    written: tuple[str, int]
    used: Clock = field(default_factory=dict)
    recorded: set[str] = field(default_factory=set)


class Race(AssertionError):
    """Two streams touch the same memory in no order."""


class Streams(TorchDispatchMode):
    """Watch all operations; `caller` is the stream in which a script trains."""

    def __init__(self) -> None:
        super().__init__()
        self.current = "caller"
        self.clocks: dict[str, Clock] = {"caller": {}}
        self.host: Clock = {}
        self.memory: dict[int, Memory] = {}
        self.freed_too_early: list[str] = []
        self.num_checked = 0

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        before, self.current = self.current, name
        try:
            yield
        finally:
            self.current = before

    def clock(self, name: str) -> Clock:
        clock = self.clocks.setdefault(name, {})
        merge(clock, self.host)
        return clock

    def wait(self, waiting: str, other: str) -> None:
        merge(self.clock(waiting), self.clock(other))

    def record(self, tensor: Tensor, name: str) -> None:
        self._memory_of(tensor).recorded.add(name)

    def current_stream(self, device: torch.device | None = None) -> "FakeStream":
        return FakeStream(self, self.current)

    def _memory_of(self, tensor: Tensor) -> Memory:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.memory:
            clock = self.clock(self.current)
            made = Memory(self.current, (self.current, clock.get(self.current, 0)))
            self.memory[key] = made
            weakref.finalize(storage, self._free, key)
        return self.memory[key]

    def _free(self, key: int) -> None:
        memory = self.memory.pop(key)
        known = self.clock(memory.owner)
        for name, count in memory.used.items():
            is_ordered = name == memory.owner or known.get(name, 0) >= count
            if not is_ordered and name not in memory.recorded:
                self.freed_too_early.append(f"{memory.owner}'s memory, in use by {name}")

    def _touch(self, tensor: Tensor, is_write: bool, what: str) -> None:
        memory, clock = self._memory_of(tensor), self.clocks[self.current]
        others = [memory.written, *(memory.used.items() if is_write else ())]
        for name, count in others:
            if name != self.current and clock.get(name, 0) < count:
                raise Race(f"{what} on {self.current} does not wait for {name}")
        self.num_checked += 1
        now = clock[self.current]
        memory.used[self.current] = now
        if is_write:
            memory.written = (self.current, now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        clock = self.clock(self.current)
        clock[self.current] = clock.get(self.current, 0) + 1
        schema, name = func._schema, str(func)
        is_view = any(r.alias_info and not r.alias_info.is_write for r in schema.returns)
        if not is_view:
            for number, argument in enumerate(schema.arguments):
                value = args[number] if number < len(args) else kwargs.get(argument.name)
                is_write = argument.alias_info is not None and argument.alias_info.is_write
                for tensor in _tensors(value):
                    self._touch(tensor, is_write, name)
        result = func(*args, **kwargs)
        if not is_view:
            for tensor in _tensors(result):
                self._touch(tensor, True, name)
        if name.startswith("aten._local_scalar_dense"):
            merge(self.host, clock)  # the host waits for the number
        return result


def _tensors(value: object) -> Iterable[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


@dataclass(frozen=True)
class FakeStream:
    """Take the place of ``torch.cuda.Stream``."""

    streams: Streams
    name: str

    def wait_stream(self, other: "FakeStream") -> None:
        self.streams.wait(self.name, other.name)


class StreamsNetwork(Network):
    """Join ranks as a transport does for which the host waits: Horovod."""

    def __init__(self, num_ranks: int, streams: Streams) -> None:
        super().__init__(num_ranks)
        self.streams = streams
        self.started: dict[str, Clock] = {}

    def ranks(self) -> list[MemoryCollectives]:
        return [StreamsCollectives(self, rank) for rank in range(self.num_ranks)]


class StreamsCollectives(MemoryCollectives):
    """Start an operation after all that the current stream has queued."""

    network: StreamsNetwork

    def _start(self, values: Tensor, name: str, combine: Combine) -> Pending:
        pending = super()._start(values, name, combine)
        streams = self.network.streams
        merge(self.network.started.setdefault(name, {}), streams.clock(streams.current))
        return HostWaits(pending.network, name, combine)


class HostWaits(Pending):
    """An operation that has ended on every GPU when ``wait`` returns."""

    network: StreamsNetwork

    def wait(self) -> Tensor:
        streams = self.network.streams
        merge(streams.host, self.network.started[self.name])
        streams.clock(streams.current)
        for sent in self.network.operations[self.name].sent.values():
            streams.record(sent, streams.current)  # a real one has memory of its own
        return super().wait()
