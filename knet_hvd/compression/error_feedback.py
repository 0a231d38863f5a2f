"""Error feedback: what a step's codes miss is added to the next step's gradient.

Seide et al. (Interspeech 2014); convergence by Karimireddy et al. (arXiv 1901.09847)
for codecs that shrink the error. Stochastic ternary codes do not (their variance is
about that of the gradient itself, and residuals would grow without bound), so with
error feedback the codec sends the nearest code, whose error is no larger than the value
(but for 2^-16 of the scale, the resolution of its thresholds).
"""

import math

import torch
from torch import Tensor


def choose_residual(is_finite: Tensor, missed: Tensor, before: Tensor | None) -> Tensor:
    """Return ``missed`` where it is finite, else the residual before it, or zeros.

    The choice is made where the values are: the host need not wait for a GPU.

    Args:
        is_finite: Boolean [].
        missed: fp32 [any shape].
        before: fp32 [as many values].
    """
    kept = torch.zeros_like(missed) if before is None else before.view_as(missed)
    return torch.where(is_finite, missed, kept)


class ErrorFeedback:
    """Keep one residual for each parameter, by the parameter's name.

    Attributes:
        residuals: The latest ones.
    """

    def __init__(self) -> None:
        """Start with residuals of zero."""
        self.residuals: dict[str, Tensor] = {}

    def add_to(self, name: str, gradient: Tensor) -> Tensor:
        """Return gradient + residual [any shape], fp32, as a new tensor."""
        values = gradient.to(torch.float32)
        if name not in self.residuals:
            return values.clone()
        # A checkpoint brings residuals back on the CPU.
        residual = self.residuals[name] = self.residuals[name].to(values.device)
        return values + residual.view_as(values)

    def update(self, name: str, corrected: Tensor, sent: Tensor) -> None:
        """Store corrected - sent as the residual: what was corrected and not sent.

        Args:
            name: The parameter's name.
            corrected: What ``add_to`` returned; taken over.
            sent: What this rank's payload decodes to [same shape], fp32. Where one of
                the two is not finite (a step that a loss scaler will skip), the
                residual stays.
        """
        missed = corrected.sub_(sent)
        is_finite = torch.isfinite(missed).all()
        if not missed.is_cpu:
            self.residuals[name] = choose_residual(is_finite, missed, self.residuals.get(name))
        elif is_finite:
            self.residuals[name] = missed

    def clear(self, name: str) -> None:
        """Forget a parameter's residual, after its gradient was sent in full."""
        self.residuals.pop(name, None)

    def norm(self) -> float:
        """Return the Euclidean norm over all residuals."""
        squares = [float(r.double().square().sum()) for r in self.residuals.values()]
        return math.sqrt(sum(squares))

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the residuals by parameter name, on the CPU."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self.residuals.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replace all residuals by copies of those in ``state``."""
        self.residuals = {name: tensor.clone() for name, tensor in state.items()}
