"""Snapshots of a gradient on its way: the four histograms of the TernGrad paper."""

from dataclasses import dataclass

import torch
from torch import Tensor

from knet_hvd.compression import TernaryCodec


@dataclass(frozen=True, slots=True)
class GradientSnapshot:
    """One parameter's gradient at four points of one step (TernGrad, figure 2).

    Attributes:
        original: What backward produced on this rank, plus the residual if there is
            one.
        clipped: The same within plus and minus the shared scale.
        ternary: What this rank's codes decode to: -scale, 0 or scale.
        averaged: What all ranks update with.
        scales: The shared scales [num_scales].
    """

    original: Tensor
    clipped: Tensor
    ternary: Tensor
    averaged: Tensor
    scales: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all of them."""
        return self.original, self.clipped, self.ternary, self.averaged, self.scales


def take_snapshot(
    original: Tensor,
    averaged: Tensor,
    scales: Tensor,
    stream_and_step: tuple[int, int],
    codec: TernaryCodec,
) -> GradientSnapshot:
    """Complete a snapshot from what is left after a step.

    Args:
        original: Copy of what was encoded [any shape], fp32.
        averaged: The decoded gradient [same shape].
        scales: Shared scales [num_scales].
        stream_and_step: What the codes' random numbers were drawn with: encoding again
            gives the same codes.
        codec: What encoded them.
    """
    size = codec.payload_bytes(original.numel())
    payload = torch.empty(size, dtype=torch.uint8, device=original.device)
    stream, step = stream_and_step
    codec.encode([original], scales, [stream], step, payload)
    ternary = original.new_empty(original.shape)
    codec.decode(payload.unsqueeze(0), scales, [ternary])
    flat = original.flatten()
    scale_group_size = codec.config.scale_group_size
    limits = scales.expand(flat.numel())
    if scale_group_size:
        limits = scales.repeat_interleave(scale_group_size)[: flat.numel()]
    clipped = flat.clamp(-limits, limits).view_as(original)
    return GradientSnapshot(original, clipped, ternary, averaged.clone(), scales.clone())
