"""Any bytes decode, and nothing is written outside of what an op was given."""

import pytest
import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.ops.layout import num_planes, radix

GUARD = 64
NUM_PAYLOADS, BATCHES = 1_000_000, 10


def table(wire_format: ops.WireFormat) -> Tensor:
    """Return the codes [256, planes] of every byte, as the format defines them.

    Bytes above 242 read as 242, digit 3 reads as digit 2.
    """
    base, rows = radix(wire_format), []
    for byte in range(256):
        rest = min(byte, 242) if wire_format == "trit5" else byte
        digits = [rest // base**p % base for p in range(num_planes(wire_format))]
        rows.append([min(digit, 2) - 1 for digit in digits])
    return torch.tensor(rows, dtype=torch.int16)


@pytest.mark.parametrize("wire_format", ops.WIRE_FORMATS)
def test_a_million_random_payloads(device, wire_format) -> None:
    """10^6 payloads of 128 bytes: codes are -1, 0 or 1, and those of the table."""
    count, planes = NUM_PAYLOADS // BATCHES, num_planes(wire_format)
    generator = torch.Generator().manual_seed(1)
    codes_of_byte = table(wire_format)
    codes = torch.empty(count, planes, 128, dtype=torch.int16, device=device)
    for _ in range(BATCHES):
        words = torch.empty(count * 16, dtype=torch.int64).random_(generator=generator)
        words ^= words << 1  # random_ leaves the top bit
        payloads = words.view(torch.uint8).view(1, -1).to(device)
        ops.unpack_sum(payloads, wire_format, codes)
        assert -1 <= int(codes.min()) <= int(codes.max()) <= 1
        sample = payloads.view(count, 128)[::97].cpu().long()
        expected = codes_of_byte[sample].transpose(1, 2)
        assert torch.equal(codes[::97].cpu(), expected)


@pytest.mark.parametrize("wire_format", ops.WIRE_FORMATS)
@pytest.mark.parametrize("ranks", [1, 2, 512])
def test_sums_of_every_byte(device, wire_format, ranks) -> None:
    """Every byte in every position of a block, summed over payloads."""
    index = torch.arange(256 * 128)
    first, shift = (index // 128 + index) % 256, 5 * torch.arange(ranks)[:, None]
    payloads = ((first + shift) % 256).to(torch.uint8)
    sums = torch.empty(256, num_planes(wire_format), 128, dtype=torch.int16)
    found = ops.unpack_sum(payloads.to(device), wire_format, sums.to(device))
    sum_from = table(wire_format)[(torch.arange(256) + shift) % 256].sum(0)
    expected = sum_from[first].view(256, 128, -1).transpose(1, 2).to(torch.int16)
    assert torch.equal(found.cpu(), expected)


def guarded(numel: int, dtype: torch.dtype, device: str, shift: int) -> Tensor:
    """Return a buffer of 0x5A with room for ``numel`` values at GUARD + shift."""
    size = torch.empty((), dtype=dtype).element_size()
    total = (numel + 2 * GUARD + shift) * size
    return torch.full((total,), 0x5A, dtype=torch.uint8, device=device).view(dtype)


def assert_only_inside(buffer: Tensor, first: int, numel: int) -> None:
    outside = torch.cat([buffer[:first], buffer[first + numel :]])
    assert bool((outside.view(torch.uint8) == 0x5A).all())


@pytest.mark.parametrize("numel", [0, 1, 127, 129, 639, 641, 1279, 4097, 40961])
@pytest.mark.parametrize("wire_format", ops.WIRE_FORMATS)
@pytest.mark.parametrize("shift", [0, 3])
def test_guards_around_outputs_stay(device, dtype, wire_format, numel, shift, gradient) -> None:
    """Outputs lie inside larger buffers, at any alignment; their neighbors stay."""

    def room(count: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
        buffer = guarded(count, kind, device, shift)
        return buffer, buffer.narrow(0, GUARD + shift, count)

    values = gradient(numel, dtype).to(device)
    scales = torch.ones(1, device=device)
    size, num_words = ops.payload_bytes(numel, wire_format), ops.num_words(numel, 40)
    buffers = [
        room(size, torch.uint8),
        room(numel, torch.int16),
        *(room(numel, dtype) for _ in range(2)),
        room(num_words, torch.int64),
        room(numel, torch.int16),
    ]
    payload, sums, decoded, again, words, back = (view for _, view in buffers)
    how = {"base": 3, "offset": 1, "num_digits": 40}
    ops.ternarize([values], scales, payload, key=(1, 2, 4), streams=[3], wire_format=wire_format)
    ops.unpack_sum(payload[None], wire_format, sums)
    ops.decode_mean(payload[None], scales, [decoded], wire_format=wire_format)
    ops.dequantize(sums, scales, [again], wire_format=wire_format)
    ops.pack_digits(sums, words=words, **how)
    ops.unpack_digits(words, back, **how)
    for buffer, view in buffers:
        assert_only_inside(buffer, GUARD + shift, view.numel())
    assert torch.equal(decoded, again)
    assert torch.equal(sums, back)
    assert torch.equal(decoded.float(), sums.float())
