"""Buffers that Horovod may sum: a header that survives the sum, then words of codes.

The header's four numbers are sums over ranks too: a fingerprint of the scale and its
square (equal on all N ranks if and only if N * sum of squares = square of the sum), the
number of ranks whose gradient is not finite, and the magnitudes of gradients
relative to the scale.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from knet_hvd.errors import RankMismatchError

HEADER_WORDS = 4
_RATIO_UNIT = 2.0**24
_MAX_RATIO = 4096.0


def word_bits(average: bool, num_ranks: int) -> int:
    """Return the bits of a word that survive Horovod's sum exactly.

    An int64 sum keeps 63. An average is taken in float64 (53 bits), and with a
    predivide factor its terms are no integers: each of the N additions may round, and
    three multiplications do. So 48 bits for up to 8 ranks, and one fewer for each
    doubling.
    """
    return min(48, 51 - (num_ranks - 1).bit_length()) if average else 63


def sum_dtype(average: bool) -> torch.dtype:
    """Return the dtype in which words are summed (an integer average truncates)."""
    return torch.float64 if average else torch.int64


def one_value(value: float, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor [1] of a number that the host knows.

    A GPU writes it as a kernel. ``torch.tensor`` copies it from pageable memory, for which
    the host waits until the GPU has done all that was queued.
    """
    rounded = torch.tensor(value, dtype=dtype).item()  # `full` refuses what rounding makes infinite
    return torch.full((1,), rounded, dtype=dtype, device=device)


def fingerprint(scale: float, step: int) -> int:
    """Return 16 bits of a scale (as fp32) and the step it is used in."""
    bits = int(torch.tensor(scale, dtype=torch.float32).view(torch.int32))
    mixed = (bits ^ step) * 0x9E3779B1 & 0xFFFFFFFF
    return mixed >> 16


def make_header(scale: float, step: int, magnitude: float) -> list[int]:
    """Return one rank's header, ``HEADER_WORDS`` integers.

    Args:
        scale: The scale of this step's codes.
        step: The step's number.
        magnitude: What the clip factor multiplies, of this rank's gradient; not finite
            where a value is not.
    """
    mark = fingerprint(scale, step)
    valid = magnitude < torch.inf
    ratio = min(magnitude / scale, _MAX_RATIO) if valid else 0.0
    return [mark, mark * mark, 0 if valid else 1, round(ratio * _RATIO_UNIT)]


@dataclass(frozen=True, slots=True)
class SummedHeader:
    """The sum of all ranks' headers."""

    marks: int
    squares: int
    num_invalid: int
    ratios: int

    def check(self, name: str, scale: float, step: int, num_ranks: int) -> None:
        """Check that all ranks used the same scale in the same step.

        Raises:
            RankMismatchError: On every rank, if they did not.
        """
        own = fingerprint(scale, step)
        expected = (num_ranks * own, num_ranks * own * own)
        for fewer in range(1, num_ranks):
            if own and (self.marks, self.squares) == (fewer * own, fewer * own * own):
                raise RankMismatchError(
                    f"{name}: {fewer} of {num_ranks} ranks took part. Has a rank called "
                    "hvd.join()? Ternary gradients need all ranks in every step: give them the "
                    "same number of batches. Or is `op` not the one that "
                    "Compression.ternary was given?"
                )
        if (self.marks, self.squares) != expected:
            raise RankMismatchError(
                f"{name}: ranks used different scales (check words: {expected} "
                f"expected, got {(self.marks, self.squares)}). Did ranks load "
                "different checkpoints, or is `op` not the one that "
                "Compression.ternary was given?"
            )

    def mean_magnitude(self, scale: float, num_ranks: int) -> float | None:
        """Return the mean magnitude, None where it left the range."""
        ratio = self.ratios / _RATIO_UNIT / num_ranks
        smallest = 1.0 / _MAX_RATIO
        return ratio * scale if smallest < ratio < _MAX_RATIO / num_ranks else None


def split_header(total: Tensor, num_ranks: int, average: bool) -> tuple[SummedHeader, Tensor]:
    """Split what Horovod returned into the summed header and the summed words.

    Args:
        total: float64 averages or int64 sums [HEADER_WORDS + num_words].
        num_ranks: N.
        average: Whether ``total`` holds averages.

    Returns:
        The header and the words, int64 [num_words].
    """
    if average:
        total = (total * num_ranks).round_().to(torch.int64)
    header = [int(x) for x in total[:HEADER_WORDS].tolist()]
    return SummedHeader(*header), total[HEADER_WORDS:]


def full_precision_buffer(values: Tensor, magnitude: float) -> Tensor:
    """Return a gradient with its magnitude after it, for a step without codes.

    Args:
        values: Gradient [any shape].
        magnitude: What the clip factor multiplies; not finite where a value is not.

    Returns:
        fp32, or fp64 for fp64 values, [n + 2]: the values, the magnitude (0 where it is
        not finite), and 1 if it is not finite.
    """
    dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
    invalid = not magnitude < torch.inf
    tail = (0.0 if invalid else magnitude, float(invalid))
    own = [one_value(number, values.device, dtype) for number in tail]
    return torch.cat([values.reshape(-1).to(dtype), *own])


def split_full_precision(total: Tensor) -> tuple[Tensor, float, float]:
    """Split what Horovod made of full-precision buffers [n + 2].

    Returns:
        The reduced values [n], magnitude, and number of ranks that were not finite.
    """
    magnitude, num_invalid = (float(x) for x in total[-2:].tolist())
    return total[:-2], magnitude, num_invalid
