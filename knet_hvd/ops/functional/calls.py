"""What every op's function does before its call."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def run_check(check: Callable[..., None], *arguments: Any) -> None:
    """Check arguments here, before a kernel sees them; fake kernels do when tracing."""
    if not torch.compiler.is_compiling():
        check(*arguments)


def detached(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors without their history: nothing here is differentiated."""
    return [t.detach() if t.requires_grad else t for t in tensors]
