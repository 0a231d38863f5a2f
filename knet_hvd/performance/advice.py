"""Advice on compression: which method is predicted fastest, and whether it pays."""

from dataclasses import dataclass

from knet_hvd.performance.cost_model import CostModel
from knet_hvd.performance.exchange_formulas import FP32, ExchangeFormula

WORTHWHILE = 1.1
"""Times faster than fp32 that a lossy method has to be to be advised."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do, and why.

    Attributes:
        formula: Describes the exchange that is advised.
        exchange_s: Predicted seconds of every exchange, by name.
        bucket_values: Values to exchange together.
    """

    formula: ExchangeFormula
    exchange_s: dict[str, float]
    bucket_values: int | None = None

    @property
    def method(self) -> str:
        """Name of the exchange that is advised."""
        return self.formula.name

    @property
    def compresses(self) -> bool:
        """Whether ternary codes are advised."""
        return self.formula.sends_codes

    @property
    def speedup(self) -> float:
        """Times that an exchange by the fastest compression is faster than fp32."""
        others = [s for method, s in self.exchange_s.items() if method != FP32.name]
        return self.exchange_s[FP32.name] / min(others)

    def __str__(self) -> str:
        """Say it in one line."""
        listed = ", ".join(
            f"{method} {1e3 * seconds:.1f} ms"
            for method, seconds in sorted(self.exchange_s.items(), key=lambda x: x[1])
        )
        if self.formula != FP32:
            text = f"use {self.method}: {self.speedup:.1f} times faster than fp32"
        elif self.speedup < 1:
            text = f"do not compress here: fp32 is {1 / self.speedup:.1f} times faster"
        else:
            text = (
                f"do not compress here: it would be only {self.speedup:.2f} times "
                "faster than fp32, and it loses precision"
            )
        return f"{text} (predicted exchange: {listed})"


def advise(
    model: CostModel, num_values: float, num_tensors: int = 1, unfused_values: float = 0.0
) -> Advice:
    """Choose the method for a set of gradients.

    Args:
        model: With fp32 and at least one other method.
        num_values: Values of all gradients.
        num_tensors: Gradients.
        unfused_values: Values of gradients larger than Horovod's fusion buffer.

    Returns:
        The fastest method, or fp32 unless that is 1.1 times faster: what rounds
        gradients has to be worth it.

    Raises:
        ValueError: If the model lacks fp32, or anything to compare it with.
    """
    if FP32.name not in model.methods or len(model.methods) < 2:
        known = ", ".join(model.methods)
        raise ValueError(f"advice compares fp32 with other methods; got {known}")
    seconds = {
        method: model.exchange_s(method, num_values, num_tensors, unfused_values)
        for method in model.methods
    }
    fastest = min(seconds, key=lambda method: seconds[method])
    worth_it = seconds[FP32.name] >= WORTHWHILE * seconds[fastest]
    chosen = fastest if worth_it else FP32.name
    return Advice(model.methods[chosen].formula, seconds, model.bucket_values(chosen))
