"""PyTorch kernels of ``pack_digits`` and ``unpack_digits``."""

import torch
from torch import Tensor

from knet_hvd.ops.checks import check_pack_digits, check_unpack_digits
from knet_hvd.ops.layout import LEVEL_WORDS
from knet_hvd.ops.reference.padding import padded


def pack_digits(values: Tensor, base: int, offset: int, num_digits: int, words: Tensor) -> None:
    """Write values + offset, int16, as digits of ``base`` into words, int64."""
    check_pack_digits(values, base, offset, num_digits, words)
    flat = values.reshape(-1).to(torch.int64) + offset
    blocks = words.numel() // LEVEL_WORDS
    digits = padded(flat, words.numel() * num_digits)
    digits = digits.view(blocks, num_digits, LEVEL_WORDS)
    total = torch.zeros_like(digits[:, 0])
    for digit in reversed(digits.unbind(1)):
        total = total * base + digit  # wraps as unsigned arithmetic does
    words.copy_(total.view_as(words))


def _divide_unsigned(words: Tensor, base: int) -> Tensor:
    """Divide int64 words, read as unsigned, by ``base``."""
    half = (words >> 1) & (2**63 - 1)
    quotient = (half // base) * 2
    rest = words - quotient * base
    return quotient + (rest >= base).to(torch.int64)


def unpack_digits(words: Tensor, base: int, offset: int, num_digits: int, values: Tensor) -> None:
    """Write the digits of ``base`` in words, int64, less offset, to values, int16."""
    check_unpack_digits(words, base, offset, num_digits, values)
    rest = words.reshape(-1, LEVEL_WORDS)
    digits = []
    for _ in range(num_digits):
        quotient = _divide_unsigned(rest, base)
        digits.append(rest - quotient * base - offset)
        rest = quotient
    flat = torch.stack(digits, dim=1).reshape(-1)[: values.numel()]
    values.copy_(flat.view_as(values))
