"""Advice on compression: which method is predicted fastest, and whether it pays."""

from dataclasses import dataclass

from knet_hvd.performance.cost_model import CostModel, ExchangeMethod

WORTHWHILE = 1.1
"""Times faster than fp32 that a lossy method has to be to be advised."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do, and why.

    Attributes:
        method: The method advised.
        exchange_s: Predicted seconds of every method.
        bucket_values: Values to exchange together by that method.
    """

    method: ExchangeMethod
    exchange_s: dict[ExchangeMethod, float]
    bucket_values: int | None = None

    @property
    def compresses(self) -> bool:
        """Whether ternary codes are advised."""
        return self.method in ("allgather", "alltoall")

    @property
    def speedup(self) -> float:
        """Times that an exchange by the fastest compression is faster than fp32."""
        others = [s for method, s in self.exchange_s.items() if method != "fp32"]
        return self.exchange_s["fp32"] / min(others)

    def __str__(self) -> str:
        """Say it in one line."""
        listed = ", ".join(
            f"{method} {1e3 * seconds:.1f} ms"
            for method, seconds in sorted(self.exchange_s.items(), key=lambda x: x[1])
        )
        if self.method != "fp32":
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
    if "fp32" not in model.methods or len(model.methods) < 2:
        known = ", ".join(model.methods)
        raise ValueError(f"advice compares fp32 with other methods; got {known}")
    seconds = {
        method: model.exchange_s(method, num_values, num_tensors, unfused_values)
        for method in model.methods
    }
    fastest = min(seconds, key=lambda method: seconds[method])
    worth_it = seconds["fp32"] >= WORTHWHILE * seconds[fastest]
    chosen: ExchangeMethod = fastest if worth_it else "fp32"
    return Advice(chosen, seconds, model.bucket_values(chosen))
