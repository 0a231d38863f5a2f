"""Small integers, such as sums of codes, as digits in 64-bit words."""

import torch
from torch import Tensor

from knet_hvd.ops import checks
from knet_hvd.ops.functional.calls import run_check
from knet_hvd.ops.layout import num_words

_ops = torch.ops.knet_hvd


def pack_digits(
    values: Tensor, *, base: int, offset: int, num_digits: int, words: Tensor | None = None
) -> Tensor:
    """Pack small integers as digits of ``base`` into 64-bit words.

    Args:
        values: int16 [n]; every value + offset lies in 0 to base - 1.
        base: 2 to 1025.
        offset: Added to each value.
        num_digits: Digits a word, 1 or more; base**num_digits is at most 2^64.
        words: int64 [num_words(n, num_digits)] to write to; made if None.

    Returns:
        The words.

    Raises:
        ValueError: If an argument is not of that form.
    """
    if words is None:
        size = num_words(values.numel(), num_digits)
        words = values.new_empty(size, dtype=torch.int64)
    run_check(checks.check_pack_digits, values, base, offset, num_digits, words)
    _ops.pack_digits(values, base, offset, num_digits, words)
    return words


def unpack_digits(
    words: Tensor, values: Tensor, *, base: int, offset: int, num_digits: int
) -> Tensor:
    """Invert ``pack_digits``; any word decodes to digits 0 to base - 1, less offset.

    Args:
        words: int64 [num_words(n, num_digits)].
        values: int16 [n], overwritten.

    Returns:
        ``values``.

    Raises:
        ValueError: If an argument is not of that form.
    """
    run_check(checks.check_unpack_digits, words, base, offset, num_digits, values)
    _ops.unpack_digits(words, base, offset, num_digits, values)
    return values
