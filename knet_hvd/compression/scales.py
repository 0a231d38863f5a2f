"""Scale rules: from gradients to the scales of their ternary codes."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression.config import TernaryConfig

_logger = logging.getLogger("knet_hvd")
_warned: set[str] = set()


def magnitude(values: Tensor, config: TernaryConfig) -> float:
    """Return what the clip factor multiplies: a gradient's root mean square or deviation.

    The paper clips at 2.5 standard deviations (section 3.3). Ternary codes have no
    offset, so that rule sends almost nothing of a gradient whose mean is far from 0: of
    a constant one, nothing. The root mean square is the same for a mean of 0, and keeps
    such a gradient within the scale.

    Args:
        values: Contiguous gradient [any shape].
        config: Its scale rule: ``"rms"`` or ``"std"``.

    Returns:
        The root mean square or the population's standard deviation; not finite where a
        value is not.
    """
    ((total, square),) = ops.statistics([values]).tolist()
    count = max(1, values.numel())
    mean_square = square / count
    if config.scale_rule == "std":
        mean_square -= (total / count) ** 2
        mean_square = 0.0 if mean_square < 0.0 else mean_square
    return math.sqrt(mean_square)


def local_scales(values: Sequence[Tensor], config: TernaryConfig) -> Tensor:
    """Return this rank's scale for each scale group of each gradient.

    ``"std"`` gives c * sigma (arXiv 1705.07878, section 3.3, as the authors' code has
    it: sigma is taken around the mean, the scale is c * sigma itself, and larger values
    always fire); ``"rms"`` takes sigma around 0; ``"max"`` gives the largest absolute
    value (eq. 2).

    Scales are fp32, so of an fp64 gradient only values in the range of fp32 can cross. Where
    one leaves that range, a warning says so, once.

    Args:
        values: One contiguous gradient [any shape] or more, on one device.
        config: Scale rule, clip factor and scale group size.

    Returns:
        fp32 [num_scales of all gradients], not negative; +inf where a value is NaN or
        infinite as fp32, so that a maximum over ranks keeps it (NaN is lost in an MPI
        maximum).
    """
    scales = ops.scales(
        values,
        config.scale_group_size,
        rule=config.scale_rule,
        clip_factor=config.effective_clip_factor,
    )
    if not _warned and any(tensor.dtype == torch.float64 for tensor in values):
        _warn_of_lost_values(values, scales, config.scale_group_size)
    return scales


def _warn_of_lost_values(values: Sequence[Tensor], scales: Tensor, scale_group_size: int) -> None:
    """Warn where finite fp64 values become infinite or all zero as fp32."""
    counts = [ops.num_scale_groups(tensor.numel(), scale_group_size) for tensor in values]
    for tensor, own in zip(values, scales.split(counts), strict=True):
        if tensor.dtype != torch.float64:
            continue
        lost = [
            what
            for what, is_lost in (
                ("above 3.4e38 arrive as NaN", not bool(torch.isfinite(own).all())),
                ("below 1e-45 arrive as 0", bool((own == 0).any())),
            )
            if is_lost
        ]
        if lost and bool(torch.isfinite(tensor).all()) and bool(tensor.any()):
            _warned.add("range")
            _logger.warning(
                "an fp64 gradient leaves the range of fp32, in which scales are sent: values %s "
                "(said once)",
                " and ".join(lost),
            )
            return
