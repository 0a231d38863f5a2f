"""Counter-based random numbers in PyTorch: Philox4x32-10 (Salmon et al., SC'11)."""

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def _high_low(product: Tensor) -> tuple[Tensor, Tensor]:
    # int64 wraps like unsigned arithmetic; the mask undoes the shift's sign extension.
    return (product >> 32) & _MASK, product & _MASK


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]
) -> list[Tensor]:
    """Return the four output words of each counter.

    Args:
        counter: Four int64 tensors [n] of 32-bit words.
        key: Two 32-bit words.

    Returns:
        Four int64 tensors [n] with values below 2^32.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _high_low(c0 * _MULTIPLIERS[0])
        high1, low1 = _high_low(c2 * _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1, c2, c3]


def random16(
    numel: int, key: tuple[int, int, int, int], first_value: int, device: torch.device
) -> Tensor:
    """Return 16 random bits for each of ``numel`` values of a tensor.

    Value i draws from counter (i / 128 * 16 + i % 16, stream, step), slot i % 128 / 16:
    16 lanes of 8 slots, an order that a vector unit reads without shuffling.

    Args:
        key: (seed, rank, stream, step); the first three below 2^32.
        first_value: Number of the first value in its tensor, a multiple of 128.

    Returns:
        int32 [numel], values 0 to 65535.
    """
    seed, rank, stream, step = key
    groups = -(-numel // 128)
    index = torch.arange(groups * 16, dtype=torch.int64, device=device)
    index += first_value // 128 * 16
    words = philox4x32(
        (
            index,
            torch.full_like(index, stream),
            torch.full_like(index, step & _MASK),
            torch.full_like(index, step >> 32 & _MASK),
        ),
        (seed, rank),
    )
    slots = [word & 0xFFFF for word in words] + [word >> 16 for word in words]
    table = torch.stack([slot.view(groups, 16) for slot in slots], dim=1)
    return table.reshape(-1)[:numel].to(torch.int32)
