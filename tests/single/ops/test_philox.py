"""The random numbers: published vectors, and where each value's 16 bits come from."""

import pytest
import torch

from knet_hvd import ops
from knet_hvd.ops.philox import philox4x32, random16

PI = ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0")
KNOWN_ANSWERS = [  # kat_vectors of Random123: counter, key, output
    ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (*("ffffffff " * 4, "ffffffff " * 2), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (*PI, "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_published_vectors(counter: str, key: str, expected: str) -> None:
    c0, c1, c2, c3 = (torch.tensor([word]) for word in words(counter))
    k0, k1 = words(key)
    result = philox4x32((c0, c1, c2, c3), (k0, k1))
    assert [int(word) for word in result] == words(expected)


def philox_of_plain_integers(counter: list[int], key: list[int]) -> list[int]:
    """The paper's definition, in Python's own integers."""
    c0, c1, c2, c3 = counter
    for number in range(10):
        k0 = (key[0] + number * 0x9E3779B9) % 2**32
        k1 = (key[1] + number * 0xBB67AE85) % 2**32
        high0, low0 = divmod(c0 * 0xD2511F53, 2**32)
        high1, low1 = divmod(c2 * 0xCD9E8D57, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    return [c0, c1, c2, c3]


def test_every_value_draws_from_its_own_counter(device) -> None:
    """Value i: counter i / 128 * 16 + i % 16, 16-bit slot i % 128 / 16."""
    seed, rank, stream, step = key = (2**32 - 1, 7, 2**31, 2**40 + 5)
    found = random16(1000, key, 0, torch.device(device)).cpu()
    for i in (0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 500, 999):
        counter = [i // 128 * 16 + i % 16, stream, step % 2**32, step >> 32]
        output = philox_of_plain_integers(counter, [seed, rank])
        slot = i % 128 // 16
        assert int(found[i]) == output[slot % 4] >> (16 * (slot // 4)) & 0xFFFF, i


def test_kernels_draw_the_published_numbers(device) -> None:
    """A value fires if and only if its 16 bits are below its threshold.

    The key and all words of the counter but the index are those of the third vector.
    """
    stream, key = 0x85A308D3, (0xA4093822, 0x299F31D0, 0x0370734413198A2E)
    output = philox_of_plain_integers([0, stream, key[2] % 2**32, key[2] >> 32], key[:2])
    drawn = [w & 0xFFFF for w in output] + [w >> 16 for w in output]
    values = torch.zeros(128, device=device)
    sums = torch.empty(128, dtype=torch.int16, device=device)
    one = torch.ones(1, device=device)
    for offset, fires in ((0, 0), (1, 1)):
        thresholds = torch.tensor([float(random + offset) for random in drawn])
        values[::16] = thresholds.to(device) / 65536
        payload = ops.ternarize([values], one, key=key, streams=[stream])
        ops.unpack_sum(payload[None], "trit5", sums)
        assert sums[::16].tolist() == [fires] * 8


def test_smallest_and_largest_keys_draw_random_codes(device) -> None:
    values = torch.full((640,), 0.5, device=device)
    one = torch.ones(1, device=device)
    top = 2**32 - 1
    for stream, key in ((top, (top, top, 2**63 - 1)), (0, (0, 0, 0))):
        first = ops.ternarize([values], one, key=key, streams=[stream])
        assert torch.equal(first, ops.ternarize([values], one, key=key, streams=[stream]))
        assert len(first.unique()) > 20  # of 32: five codes, each 0 or 1
