"""Wire formats and scale rules, and how many bytes or words a number of values takes.

The constants are those of ``cuda_ext/core/codec.h``; together they are the format.
"""

from typing import Final, Literal, get_args

WireFormat = Literal["trit5", "crumb4"]

WIRE_FORMATS: Final[tuple[WireFormat, ...]] = get_args(WireFormat)
ScaleRule = Literal["rms", "std", "max"]
SCALE_RULES: Final[tuple[ScaleRule, ...]] = get_args(ScaleRule)
GROUP_VALUES: Final = 128
"""Values that share 16 Philox counters; the planes of a block are one group long."""
BLOCK_BYTES: Final = 128
LEVEL_WORDS: Final = 32
"""Words of a block of the levels codec; word j holds values j, j + 32, j + 64, ..."""

_PLANES: Final[dict[WireFormat, int]] = {"trit5": 5, "crumb4": 4}
_RADIX: Final[dict[WireFormat, int]] = {"trit5": 3, "crumb4": 4}


def _index_of(name: str, choices: tuple[str, ...], what: str) -> int:
    if name not in choices:
        raise ValueError(f"{what}: expected one of {choices}, got {name!r}")
    return choices.index(name)


def format_index(wire_format: str) -> int:
    """Return a wire format's number, which the ops take; ValueError if there is none."""
    return _index_of(wire_format, WIRE_FORMATS, "wire_format")


def rule_index(rule: str) -> int:
    """Return a scale rule's number, which the ops take; ValueError if there is none."""
    return _index_of(rule, SCALE_RULES, "scale_rule")


def num_planes(wire_format: WireFormat) -> int:
    """Return the number of codes in a byte: 5 for ``trit5``, 4 for ``crumb4``."""
    return _PLANES[wire_format]


def radix(wire_format: WireFormat) -> int:
    """Return the base of the digits in a byte: 3 for ``trit5``, 4 for ``crumb4``."""
    return _RADIX[wire_format]


def code_bits(wire_format: WireFormat) -> float:
    """Return the bits that a code takes: 1.6 for ``trit5``, 2 for ``crumb4``."""
    return 8 / _PLANES[wire_format]


def block_values(wire_format: WireFormat) -> int:
    """Return the number of values in a block of ``BLOCK_BYTES`` bytes."""
    return GROUP_VALUES * _PLANES[wire_format]


def ceil_div(dividend: int, divisor: int) -> int:
    """Return the smallest integer not below ``dividend / divisor``."""
    return -(-dividend // divisor)


def num_scale_groups(numel: int, scale_group_size: int) -> int:
    """Return the number of scales of a tensor; ``scale_group_size`` 0 means one."""
    return max(1, ceil_div(numel, scale_group_size)) if scale_group_size else 1


def payload_bytes(numel: int, wire_format: WireFormat) -> int:
    """Return the bytes that ``numel`` codes take, whole blocks only."""
    return ceil_div(numel, block_values(wire_format)) * BLOCK_BYTES


def padded_values(numel: int, wire_format: WireFormat) -> int:
    """Return ``numel`` rounded up to whole blocks: where the next tensor's sums are."""
    block = block_values(wire_format)
    return ceil_div(numel, block) * block


def digits_per_word(base: int, bits: int = 64) -> int:
    """Return how many digits of ``base`` an unsigned word of ``bits`` bits holds."""
    digits, power = 0, base
    while power <= 2**bits:
        digits, power = digits + 1, power * base
    return digits


def num_words(numel: int, num_digits: int) -> int:
    """Return the 64-bit words that ``numel`` digits take, whole blocks only.

    Raises:
        ValueError: If ``num_digits`` is below 1.
    """
    if num_digits < 1:
        raise ValueError(f"num_digits: expected at least 1, got {num_digits}")
    return ceil_div(numel, num_digits * LEVEL_WORDS) * LEVEL_WORDS
