"""Cost model of gradient exchanges, from a few measurements on the machines in use.

Each method's time is a curve over the number of values, measured at a few sizes, plus
what every further tensor costs. Codec, network and their overlap are in it as they are
on these machines; other numbers of ranks are reached through the formulas of what
crosses the network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from knet_hvd import ops
from knet_hvd.performance.exchange_formulas import ExchangeFormula
from knet_hvd.performance.time_curve import TimeCurve

_ENCODES = 2
"""Passes of the codec before anything crosses: statistics and codes."""


@dataclass(frozen=True, slots=True)
class MethodCost:
    """What one method takes.

    Attributes:
        formula: Describes the method.
        curve: Seconds against the number of fp32 values of one gradient.
        tensor_s: Seconds for each further tensor of the same values.
        unfused_share: Time of a gradient too large for Horovod's fusion buffer, which
            crosses from where it lies, over that of smaller ones with as many values.
    """

    formula: ExchangeFormula
    curve: TimeCurve
    tensor_s: float
    unfused_share: float = 1.0

    def exchange_s(self, num_values: float, num_tensors: int, unfused_values: float = 0.0) -> float:
        """Return the seconds of an exchange that nothing hides."""
        saved = (1 - self.unfused_share) * unfused_values / num_values
        together_s = self.curve.at(num_values) * (1 - saved)
        return together_s + self.tensor_s * max(0, num_tensors - 1)


@dataclass(frozen=True, slots=True)
class CostModel:
    """What an exchange takes on the machines where it was calibrated.

    Attributes:
        num_ranks: Ranks that exchange.
        methods: The cost of each method that was measured, by name.
        codec_s: Seconds a value that the codec takes on one rank, by method.
        code_bits: Bits of a value's code.
    """

    num_ranks: int
    methods: Mapping[str, MethodCost]
    codec_s: Mapping[str, float]
    code_bits: float = ops.code_bits("trit5")

    def exchange_s(
        self,
        method: str,
        num_values: float,
        num_tensors: int = 1,
        unfused_values: float = 0.0,
    ) -> float:
        """Predict an exchange of complete gradients.

        Args:
            method: One that was measured.
            num_values: Values of all gradients.
            num_tensors: Gradients that do not share a buffer with others.
            unfused_values: Values of gradients larger than Horovod's fusion buffer.

        Returns:
            Seconds.

        Raises:
            ValueError: If the method was not measured.
        """
        if method not in self.methods:
            known = ", ".join(self.methods)
            raise ValueError(f"method: expected one of {known}; got {method!r}")
        cost = self.methods[method]
        return cost.exchange_s(num_values, num_tensors, unfused_values)

    def bucket_values(self, method: str) -> int:
        """Return how many values to exchange together.

        Larger buckets would hardly be faster by the value, and smaller ones are
        complete earlier, so that more of their exchange overlaps with backward.

        Args:
            method: One that was measured.
        """
        return int(self.methods[method].curve.efficient_size())

    def step_s(
        self,
        method: str,
        num_values: float,
        num_tensors: int = 1,
        *,
        compute_s: float = 0.0,
        backward_s: float = 0.0,
        overlap: float = 0.0,
    ) -> float:
        """Predict a training step.

        Args:
            method: One that was measured.
            num_values: Values of all gradients.
            num_tensors: Gradients.
            compute_s: Forward, backward and optimizer on one rank alone.
            backward_s: Of that, the backward pass.
            overlap: Share of the backward pass that can hide the exchange: 0 where the
                processors compute and communicate with the same cores.

        Returns:
            Seconds.
        """
        exchange_s = self.exchange_s(method, num_values, num_tensors)
        return compute_s + max(0.0, exchange_s - overlap * backward_s)

    def at_ranks(self, num_ranks: int) -> "CostModel":
        """Return the model for another number of the same machines.

        The network's share of each point grows as the bytes that a rank sends, the
        codec's as the payloads that it decodes, latencies as the messages of a ring.

        Args:
            num_ranks: 2 or more.

        Raises:
            ValueError: If either number of ranks is 1: nothing is exchanged there.
        """
        if num_ranks < 2 or self.num_ranks < 2:
            raise ValueError(
                "a cost model is for 2 ranks or more, "
                f"got {self.num_ranks} calibrated and {num_ranks} wanted"
            )
        messages = (num_ranks - 1) / (self.num_ranks - 1)
        methods = {}
        codec = {}
        for method, cost in self.methods.items():
            own = self.codec_s.get(method, 0.0)
            decodes = cost.formula.num_decodes
            codec[method] = (
                own * (_ENCODES + decodes(num_ranks)) / (_ENCODES + decodes(self.num_ranks))
            )
            wire_bits = cost.formula.wire_bits
            bits = wire_bits(num_ranks, self.code_bits) / wire_bits(self.num_ranks, self.code_bits)
            latency = cost.curve.latency_s
            seconds = [
                latency * messages
                + max(0.0, point - latency - own * size) * bits
                + codec[method] * size
                for size, point in zip(cost.curve.sizes, cost.curve.seconds, strict=True)
            ]
            curve = replace(cost.curve, seconds=tuple(_rising(seconds)))
            methods[method] = replace(cost, curve=curve)
        return CostModel(num_ranks, methods, codec, self.code_bits)


def _rising(seconds: Sequence[float]) -> list[float]:
    """Return the running maximum: noise must not make a larger size cheaper."""
    result: list[float] = []
    for value in seconds:
        result.append(max(value, result[-1]) if result else value)
    return result
