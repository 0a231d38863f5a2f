"""Settings of ternary compression; the same on every rank."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from knet_hvd.argument_checks import check_flag, check_integer, check_positive, shown
from knet_hvd.ops import GROUP_VALUES, SCALE_RULES, WIRE_FORMATS, ScaleRule, WireFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class TernaryConfig:
    """Choose how gradients are ternarized (TernGrad, arXiv 1705.07878).

    Raises:
        TypeError: If a setting is of another type.
        ValueError: If a setting is out of range.
    """

    wire_format: WireFormat = "trit5"
    """``"trit5"``: five codes a byte, 1.6 bits a value; ``"crumb4"``: four, 2 bits."""

    scale_rule: ScaleRule = "rms"
    """``"rms"``: scale = clip_factor * root mean square, larger values are clipped;
    ``"std"``: clip_factor * standard deviation, as published, which clips a gradient
    whose mean is far from 0 to almost nothing; ``"max"``: the largest absolute value,
    nothing is clipped."""

    clip_factor: float | None = None
    """c of the scale c * sigma. None: 2.5, the paper's; 1.224 with error feedback, the
    level that is nearest to a Gaussian in the mean square (Max, 1960)."""

    scale_group_size: int = 0
    """Values that share a scale, a multiple of 128; 0 for one scale a tensor."""

    error_feedback: bool = False
    """Send the nearest code and add what it misses to the next step's gradient."""

    min_values: int = 512
    """Tensors with fewer values than this cross the network in floating point."""

    float_parameters: tuple[str, ...] = ()
    """Names, or shell patterns such as ``"*.bias"``, of parameters whose gradients stay
    in floating point whatever their size (the paper's last layer on ImageNet)."""

    seed: int = 0
    """Seed of the random numbers; ranks, tensors and steps differ by themselves."""

    def __post_init__(self) -> None:
        if self.wire_format not in WIRE_FORMATS:
            raise ValueError(
                f"wire_format: expected one of {WIRE_FORMATS}, got {self.wire_format!r}"
            )
        if self.scale_rule not in SCALE_RULES:
            raise ValueError(f"scale_rule: expected one of {SCALE_RULES}, got {self.scale_rule!r}")
        if self.clip_factor is not None:
            check_positive("clip_factor", self.clip_factor)
        check_integer("scale_group_size", self.scale_group_size, least=0)
        if self.scale_group_size % GROUP_VALUES:
            raise ValueError(
                f"scale_group_size: expected 0 or a multiple of {GROUP_VALUES}, "
                f"got {self.scale_group_size}"
            )
        check_flag("error_feedback", self.error_feedback)
        check_integer("min_values", self.min_values, least=1)
        check_integer("seed", self.seed, least=0, most=2**32 - 1)
        if not isinstance(self.float_parameters, (tuple, list)) or not all(
            isinstance(pattern, str) for pattern in self.float_parameters
        ):
            raise TypeError(
                f"float_parameters: expected patterns, got {shown(self.float_parameters)}; "
                'write float_parameters=("*.bias",)'
            )

    @property
    def effective_clip_factor(self) -> float:
        """The clip factor in use."""
        if self.clip_factor is not None:
            return self.clip_factor
        return 1.224 if self.error_feedback else 2.5

    def stays_float(self, name: str, numel: int) -> bool:
        """Return whether the gradient of a parameter of ``numel`` values stays in fp32."""
        return numel < self.min_values or any(
            fnmatchcase(name, pattern) for pattern in self.float_parameters
        )
