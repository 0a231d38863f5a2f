"""The settings of a synthesizer's layers."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesizerLayers:
    """Set the layers of synthesizers.

    Raises:
        ValueError: If a setting is out of range.
    """

    hidden_layers: int | None = None
    """Layers before the last; as published if not given: 2, but 0 where a fully
    connected one sees the targets."""

    hidden_units: int | None = None
    """Units or channels of hidden layers; as published if not given: 1024 or 128."""

    kernel_size: int = 5
    """Width of convolutions in pixels, an odd number."""

    convolutions: bool = True
    """Predict gradients of images by convolutions, as published; no: by fully connected
    layers, which see the whole image and know where in it they are."""

    def __post_init__(self) -> None:
        if self.hidden_layers is not None and self.hidden_layers < 0:
            raise ValueError(f"hidden_layers: expected at least 0, got {self.hidden_layers}")
        if self.hidden_units is not None and self.hidden_units < 1:
            raise ValueError(f"hidden_units: expected at least 1, got {self.hidden_units}")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, got {self.kernel_size}")
