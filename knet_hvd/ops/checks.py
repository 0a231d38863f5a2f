"""Checks of the ops' arguments: one message for eager mode, fake tensors and export."""

from collections.abc import Sequence

import torch
from torch import Tensor

from knet_hvd.ops.layout import (
    BLOCK_BYTES,
    GROUP_VALUES,
    LEVEL_WORDS,
    SCALE_RULES,
    WIRE_FORMATS,
    block_values,
    ceil_div,
    num_scale_groups,
    num_words,
)
from knet_hvd.ops.tensor_checks import (
    check_device,
    check_gradients,
    check_payloads,
    check_tensor,
    check_value,
    is_place,
)


def _check_scale_group_size(scale_group_size: int) -> None:
    check_value(
        scale_group_size >= 0 and scale_group_size % GROUP_VALUES == 0,
        lambda: (
            f"scale_group_size: expected 0 (one scale a tensor) or a multiple of "
            f"{GROUP_VALUES}, got {scale_group_size}"
        ),
    )


def _check_format(wire_format: int) -> None:
    check_value(
        0 <= wire_format < len(WIRE_FORMATS),
        lambda: f"wire_format: expected 0 to {len(WIRE_FORMATS) - 1}, got {wire_format}",
    )


def _check_shared_scales(scales: Tensor, tensors: Sequence[Tensor], scale_group_size: int) -> None:
    counts = [num_scale_groups(tensor.numel(), scale_group_size) for tensor in tensors]
    check_tensor(scales, "scales", torch.float32, sum(counts), tensors[0])


def _check_count(numbers: Sequence[int], what: str, count: int) -> None:
    check_value(
        len(numbers) == count,
        lambda: f"{what}: expected one for each of {count} tensors, got {len(numbers)}",
    )


def _num_blocks(tensors: Sequence[Tensor], wire_format: int) -> int:
    block = block_values(WIRE_FORMATS[wire_format])
    return sum([ceil_div(tensor.numel(), block) for tensor in tensors])


def check_statistics(values: Sequence[Tensor], scale_group_size: int) -> None:
    """Check the arguments of ``statistics``."""
    check_gradients(values, "values")
    _check_scale_group_size(scale_group_size)


def check_scales(
    values: Sequence[Tensor], scale_group_size: int, rule: int, clip_factor: float
) -> None:
    """Check the arguments of ``scales``."""
    check_statistics(values, scale_group_size)
    check_value(
        0 <= rule < len(SCALE_RULES),
        lambda: f"rule: expected 0 to {len(SCALE_RULES) - 1}, got {rule}",
    )
    check_value(clip_factor > 0, lambda: f"clip_factor: expected > 0, got {clip_factor}")


def _check_key(key: Sequence[int], streams: Sequence[int]) -> None:
    check_value(
        len(key) == 3
        and all(0 <= part < 2**32 for part in (*key[:2], min(streams), max(streams)))
        and 0 <= key[2] < 2**63,
        lambda: (
            f"key: expected (seed, rank, step), seed, rank and streams below 2^32, step below "
            f"2^63, got {list(key)}, streams {list(streams)}"
        ),
    )


def check_ternarize(
    values: Sequence[Tensor],
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    key: Sequence[int],
    streams: Sequence[int],
    first_values: Sequence[int],
    stochastic: bool,
    payload: Tensor,
) -> None:
    """Check the arguments of ``ternarize``."""
    check_statistics(values, scale_group_size)
    _check_format(wire_format)
    _check_shared_scales(scales, values, scale_group_size)
    _check_count(streams, "streams", len(values))
    _check_count(first_values, "first_values", len(values))
    _check_key(key, streams)
    for tensor, first_value in zip(values, first_values, strict=True):
        if not is_place(first_value, tensor.numel()):
            raise ValueError(
                f"first_values: expected multiples of {GROUP_VALUES} below 2^35, got {first_value}"
            )
    blocks = _num_blocks(values, wire_format)
    check_tensor(payload, "payload", torch.uint8, blocks * BLOCK_BYTES, values[0])


def check_unpack_sum(payloads: Tensor, wire_format: int, sums: Tensor) -> None:
    """Check the arguments of ``unpack_sum``."""
    _check_format(wire_format)
    check_payloads(payloads, _num_blocks([sums], wire_format) * BLOCK_BYTES)
    check_tensor(sums, "sums", torch.int16, sums.numel(), payloads)


def _check_outputs(
    scales: Tensor, scale_group_size: int, wire_format: int, divisor: int, outs: Sequence[Tensor]
) -> None:
    check_value(1 <= divisor < 2**31, lambda: f"divisor: expected 1 to 2^31 - 1, got {divisor}")
    check_gradients(outs, "outs")
    _check_scale_group_size(scale_group_size)
    _check_format(wire_format)
    _check_shared_scales(scales, outs, scale_group_size)


def check_decode_mean(
    payloads: Tensor,
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    divisor: int,
    outs: Sequence[Tensor],
) -> None:
    """Check the arguments of ``decode_mean``."""
    _check_outputs(scales, scale_group_size, wire_format, divisor, outs)
    check_payloads(payloads, _num_blocks(outs, wire_format) * BLOCK_BYTES)
    check_device(payloads, "payloads", outs[0])


def check_dequantize(
    sums: Tensor,
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    divisor: int,
    outs: Sequence[Tensor],
) -> None:
    """Check the arguments of ``dequantize``."""
    _check_outputs(scales, scale_group_size, wire_format, divisor, outs)
    block = block_values(WIRE_FORMATS[wire_format])
    last = outs[-1].numel()  # the last tensor's sums need no padding
    needed = _num_blocks(outs[:-1], wire_format) * block + last
    padded = _num_blocks(outs, wire_format) * block
    if sums.numel() != padded:
        check_tensor(sums, f"sums, in blocks of {block}", torch.int16, needed, outs[0])
    check_tensor(sums, "sums", torch.int16, sums.numel(), outs[0])


def _check_digits(values: Tensor, base: int, num_digits: int, words: Tensor) -> None:
    check_value(
        2 <= base <= 1025 and num_digits >= 1 and base**num_digits <= 2**64,
        lambda: (
            f"expected base 2 to 1025, 1 digit or more and base**num_digits <= 2**64, got "
            f"base {base}, {num_digits} digits"
        ),
    )
    check_tensor(values, "values", torch.int16, values.numel(), words)
    expected = num_words(values.numel(), num_digits)
    check_tensor(words, f"words [{LEVEL_WORDS} k]", torch.int64, expected, values)


def check_pack_digits(
    values: Tensor, base: int, offset: int, num_digits: int, words: Tensor
) -> None:
    """Check the arguments of ``pack_digits``."""
    _check_digits(values, base, num_digits, words)


def check_unpack_digits(
    words: Tensor, base: int, offset: int, num_digits: int, values: Tensor
) -> None:
    """Check the arguments of ``unpack_digits``."""
    _check_digits(values, base, num_digits, words)
