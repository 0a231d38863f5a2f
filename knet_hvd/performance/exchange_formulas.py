"""What each way to exchange gradients costs, as formulas of the number of ranks.

An exchange of ``data_parallel`` holds its formula. Cost model, advice and the choice of
``"auto"`` take formulas as values, so that they need no list of exchanges.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from knet_hvd.compression import LevelsCodec
from knet_hvd.performance.wire_bytes import allgather_bytes, allreduce_bytes, alltoall_bytes


@dataclass(frozen=True, slots=True)
class ExchangeFormula(ABC):
    """Describe one way to exchange gradients.

    Attributes:
        name: What it is called in arguments, flags and advice.
    """

    name: str

    @property
    def sends_codes(self) -> bool:
        """Whether ternary codes cross, and not floating point."""
        return True

    @abstractmethod
    def wire_bits(self, num_ranks: int, code_bits: float) -> float:
        """Return the bits a value that each rank sends; codes have ``code_bits``."""

    @abstractmethod
    def num_messages(self, num_ranks: int) -> int:
        """Return the messages that a rank sends one after the other."""

    @abstractmethod
    def num_decodes(self, num_ranks: int) -> int:
        """Return how many times a rank decodes as many codes as a gradient has values."""


@dataclass(frozen=True, slots=True)
class FloatAllreduce(ExchangeFormula):
    """A ring that adds floating-point values, as Horovod's own optimizer does."""

    bits: int

    @property
    def sends_codes(self) -> bool:
        """See ``ExchangeFormula.sends_codes``."""
        return False

    def wire_bits(self, num_ranks: int, code_bits: float = 0.0) -> float:
        """See ``ExchangeFormula.wire_bits``."""
        return allreduce_bytes(self.bits, num_ranks)

    def num_messages(self, num_ranks: int) -> int:
        """See ``ExchangeFormula.num_messages``."""
        return 2 * (num_ranks - 1)

    def num_decodes(self, num_ranks: int) -> int:
        """See ``ExchangeFormula.num_decodes``."""
        return 0


@dataclass(frozen=True, slots=True)
class CodeAllgather(ExchangeFormula):
    """Every rank gets every rank's codes: 1.6 (N - 1) bits a value."""

    def wire_bits(self, num_ranks: int, code_bits: float) -> float:
        """See ``ExchangeFormula.wire_bits``."""
        return allgather_bytes(code_bits, num_ranks)

    def num_messages(self, num_ranks: int) -> int:
        """See ``ExchangeFormula.num_messages``."""
        return num_ranks - 1

    def num_decodes(self, num_ranks: int) -> int:
        """See ``ExchangeFormula.num_decodes``."""
        return num_ranks


@dataclass(frozen=True, slots=True)
class CodeAlltoall(ExchangeFormula):
    """Codes to the rank that adds them, sums back: (N - 1)/N (1.6 + levels) bits."""

    def wire_bits(self, num_ranks: int, code_bits: float) -> float:
        """See ``ExchangeFormula.wire_bits``."""
        return alltoall_bytes(code_bits + LevelsCodec(num_ranks).bits_per_value, num_ranks)

    def num_messages(self, num_ranks: int) -> int:
        """See ``ExchangeFormula.num_messages``."""
        return 2 * (num_ranks - 1)

    def num_decodes(self, num_ranks: int) -> int:
        """Return 2: N ranks' codes of one shard, an Nth each, and the sums of all."""
        return 2


FP32 = FloatAllreduce("fp32", 32)
FP16 = FloatAllreduce("fp16", 16)
ALLGATHER = CodeAllgather("allgather")
ALLTOALL = CodeAlltoall("alltoall")


def cheapest(
    formulas: Iterable[ExchangeFormula], num_ranks: int, code_bits: float
) -> ExchangeFormula:
    """Return the formula with the fewest bits a value; of equal ones the first."""
    return min(formulas, key=lambda formula: formula.wire_bits(num_ranks, code_bits))
