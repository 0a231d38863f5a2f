"""Figures as images for TensorBoard and as PNG files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pixels(figure: "Figure") -> Tensor:
    """Return a figure as an image [height, width, 3], uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)  # matplotlib leaves its methods untyped
    canvas.draw()
    width, height = canvas.get_width_height()
    rgba = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    return rgba.reshape(height, width, 4)[:, :, :3]


def save_png(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, and make its folder.

    Raises:
        ValueError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png")
    except OSError as error:
        raise ValueError(
            f"figure {path} cannot be written ({error.strerror}): choose another"
        ) from error
