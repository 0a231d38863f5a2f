"""Clip gradients by their norm, as ``torch.nn.utils.clip_grad_norm_`` does."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from knet_hvd.comm import World


class Clipping:
    """Scale the gradients of a stage down to a norm, before its update.

    Where stages wait for each other, the norm is that over all stages, as in one process.
    Decoupled stages do not wait: each takes the norm of its own gradients, so that the same
    limit cuts less.
    """

    def __init__(self, max_norm: float, world: World | None, num_replicas: int = 1) -> None:
        """Take the limit.

        Args:
            max_norm: The largest norm (2-norm) that gradients may have.
            world: All ranks, if the norm is that over all stages.
            num_replicas: Ranks that hold the same gradients of each stage.

        Raises:
            ValueError: If the limit is not positive.
        """
        if not max_norm > 0:
            raise ValueError(f"clip_grad_norm: expected > 0, got {max_norm}")
        self._max_norm = max_norm
        self._world = world
        self._num_replicas = num_replicas

    @torch.no_grad()
    def apply(self, parameters: Iterable[nn.Parameter]) -> None:
        """Scale the gradients; every rank has to call if the norm is over all stages."""
        gradients = [each.grad for each in parameters if each.grad is not None]
        norm = self._norm(gradients)
        # The limit as torch.nn.utils.clip_grad_norm_ computes it.
        factor = self._max_norm / (norm + 1e-6)
        if gradients and factor < 1:  # a stage of activation functions alone has none
            torch._foreach_mul_(gradients, factor)

    def _norm(self, gradients: list[Tensor]) -> float:
        own = sum(float(each) ** 2 for each in torch._foreach_norm(gradients)) if gradients else 0.0
        if self._world is None:
            return math.sqrt(own)
        texts = self._world.gather_text(repr(own), "the norm of all gradients")
        return math.sqrt(sum(map(float, texts)) / self._num_replicas)
