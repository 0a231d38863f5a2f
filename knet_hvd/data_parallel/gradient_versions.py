"""Find gradients that a script changes while they are exchanged.

Ranks exchange a gradient as soon as backward has produced it. What a script does to it before the
exchange has ended reaches the codes on some ranks and the average on others, and ranks drift apart.
"""

from dataclasses import dataclass

from torch import Tensor

from knet_hvd.errors import KnetError


@dataclass(frozen=True, slots=True)
class GradientVersion:
    """A gradient as it was when its exchange began.

    Changes through ``gradient.data`` are not seen: PyTorch does not count them.
    """

    gradient: Tensor
    version: int | None
    """What PyTorch has counted of changes in place. None for a view, which shares its counter with
    the rest of a larger tensor, such as one buffer for all gradients."""

    @classmethod
    def of(cls, gradient: Tensor) -> "GradientVersion":
        """Note the present version of a gradient."""
        return cls(gradient, None if gradient._is_view() else gradient._version)

    def check(self, name: str, parameter: Tensor) -> None:
        """Check that a parameter still has the same gradient.

        Raises:
            KnetError: If it was changed in place, replaced or removed.
        """
        if parameter.grad is not self.gradient:
            what = "removed" if parameter.grad is None else "replaced by another tensor"
        elif self.version not in (None, self.gradient._version):
            what = "changed in place"
        else:
            return
        raise KnetError(
            f"{name}: its gradient was {what} between backward() and synchronize() or step(), "
            "while it was being exchanged, so that ranks would drift apart. "
            "Clip, scale or mask gradients after the exchange:\n"
            "    optimizer.synchronize()  # first; then change the gradients\n"
            "    with optimizer.skip_synchronize(): optimizer.step()"
        )
