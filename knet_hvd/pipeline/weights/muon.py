"""The next update of Muon, from its average alone.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), as
``torch.optim.Muon`` has it: the average of the gradients is made orthogonal by a few steps of
an iteration after Newton and Schulz.
"""

import math
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def muon_update(average: Tensor, group: dict[str, Any]) -> tuple[Tensor, float]:
    """Return the direction of an update that leaves the average as it is.

    Args:
        average: Of the gradients of one parameter, [rows, columns].
        group: The parameter's group in ``torch.optim.Muon``.

    Returns:
        The direction, of the average's shape and dtype, and the factor on the learning rate.
    """
    rows, columns = average.shape
    direction = average.bfloat16()
    if rows > columns:
        direction = direction.T
    direction = direction / direction.norm().clamp(min=group["eps"])
    a, b, c = group["ns_coefficients"]
    for _ in range(group["ns_steps"]):
        products = direction @ direction.T
        products = torch.addmm(products, products, products, beta=b, alpha=c)
        direction = torch.addmm(direction, products, direction, beta=a)
    if rows > columns:
        direction = direction.T
    if group["adjust_lr_fn"] == "match_rms_adamw":
        factor = 0.2 * math.sqrt(max(rows, columns))
    else:
        factor = math.sqrt(max(1, rows / columns))
    return direction.to(average.dtype), factor
