"""Wrong arguments give an error that names what was expected and what was given."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from knet_hvd import ops

N, BYTES = 1000, 256
KEY = (1, 2, 4)


def values(**how: object) -> Tensor:
    return torch.zeros(N, **how)


def encode(x: Tensor | None = None, **changed: object) -> object:
    arguments = {"scales": torch.ones(1), "key": KEY, "streams": [3], **changed}
    x = values() if x is None else x
    return ops.ternarize([x], arguments.pop("scales"), **arguments)


def unpack(payloads: Tensor, dtype: torch.dtype = torch.int16) -> object:
    return ops.unpack_sum(payloads, "trit5", torch.zeros(N, dtype=dtype))


def decode(out: Tensor, scales: Tensor | None = None, **how: object) -> object:
    payloads = torch.zeros(1, BYTES, dtype=torch.uint8)
    scales = torch.ones(1) if scales is None else scales
    return ops.decode_mean(payloads, scales, [out], **how)


def dequantize(sums: Tensor, scales: Tensor | None = None) -> object:
    scales = torch.ones(1) if scales is None else scales
    return ops.dequantize(sums, scales, [torch.zeros(N)])


def digits(x: Tensor, words: Tensor | None = None, **changed: int) -> object:
    how = {"base": 7, "offset": 3, "num_digits": 22, **changed}
    return ops.pack_digits(x, words=words, **how)


def undigits(words: Tensor, dtype: torch.dtype = torch.int16) -> object:
    back = torch.zeros(N, dtype=dtype)
    return ops.unpack_digits(words, back, base=7, offset=3, num_digits=22)


def columns(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(N, 2, dtype=dtype)[:, 0]


def uint8(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.uint8)


def int64(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)


INT16, UINT8 = torch.int16, torch.uint8
CASES: dict[str, tuple[Callable[[], object], str]] = {
    "integer gradient": (
        lambda: ops.statistics([values(dtype=torch.int32)]),
        "expected fp32, fp64, fp16 or bf16, got torch.int32",
    ),
    "bool gradient": (lambda: ops.scales([values().bool()]), "got torch.bool"),
    "strided gradient": (
        lambda: ops.statistics([columns()]),
        r"expected a contiguous .* strides \(2,\)",
    ),
    "sparse gradient": (
        lambda: ops.scales([torch.eye(3).to_sparse()]),
        "expected a contiguous dense tensor, got torch.sparse_coo",
    ),
    "scale group size": (lambda: ops.statistics([values()], 100), "multiple of 128, got 100"),
    "negative scale group size": (lambda: encode(scale_group_size=-128), "got -128"),
    "encode strided": (lambda: encode(columns()), r"strides \(2,\)"),
    "encode complex": (lambda: encode(values(dtype=torch.complex64)), "got torch.complex64"),
    "number of scales": (
        lambda: encode(scale_group_size=128),
        "scales: expected 8 contiguous values of torch.float32, got 1 of",
    ),
    "dtype of scales": (
        lambda: encode(scales=torch.ones(1).double()),
        "expected 1 .* torch.float32, got 1 of torch.float64",
    ),
    "payload size": (lambda: encode(payload=uint8(BYTES - 1)), "payload: expected 256 .* got 255"),
    "payload dtype": (
        lambda: encode(payload=uint8(BYTES).to(torch.int8)),
        "expected 256 .* torch.uint8, got 256 of torch.int8",
    ),
    "short key": (lambda: encode(key=(1, 2)), r"key: expected .* got \[1, 2\]"),
    "long key": (lambda: encode(key=(1, 2, 3, 4)), r"key: expected .* got \[1, 2, 3, 4\]"),
    "large key": (lambda: encode(key=(2**32, 0, 0)), "got .4294967296, 0, 0"),
    "large stream": (lambda: encode(streams=[2**32]), r"streams below 2.32.* \[4294967296\]"),
    "first value": (
        lambda: encode(first_values=[100]),
        "first_values: expected multiples of 128 .* got 100",
    ),
    "negative rank": (lambda: encode(key=(0, -1, 0)), "below 2.32, step below 2.63, got .0, -1"),
    "rule": (lambda: ops.scales([values()], rule="mean"), "expected one of .*'rms'.* got 'mean'"),
    "clip factor": (lambda: ops.scales([values()], clip_factor=0), "expected > 0, got 0"),
    "short rows": (
        lambda: unpack(uint8(2, BYTES - 1)),
        r"at least 256 contiguous bytes, got \(2, 255\)",
    ),
    "strided rows": (
        lambda: unpack(uint8(1, 2 * BYTES)[:, ::2]),
        r"256 contiguous bytes, .* strides \(512, 2\)",
    ),
    "one-dimensional payloads": (
        lambda: unpack(uint8(BYTES)),
        r"expected uint8 \[num_payloads, 256\], got torch.uint8 \(256,\)",
    ),
    "int8 payloads": (
        lambda: unpack(uint8(1, BYTES).to(torch.int8)),
        r"expected uint8 .* got torch.int8 \(1, 256\)",
    ),
    "no payload": (lambda: unpack(uint8(0, BYTES)), "1 to 512 payloads, got 0"),
    "too many": (lambda: unpack(uint8(513, BYTES)), "1 to 512 payloads, got 513"),
    "sums": (lambda: unpack(uint8(1, BYTES), torch.int32), "int16, got 1000 of"),
    "out dtype": (lambda: decode(values(dtype=INT16)), r"outs\[0\]: .* got torch.int16"),
    "out strides": (lambda: decode(columns()), r"outs\[0\]: expected a contiguous .*\(2,\)"),
    "decode scales": (lambda: decode(values(), torch.ones(2)), "scales: expected 1 .* got 2 of"),
    "decode scale group size": (lambda: decode(values(), scale_group_size=64), "128, got 64"),
    "number of sums": (
        lambda: dequantize(torch.zeros(N - 1, dtype=INT16)),
        "sums, in blocks of 640: expected 1000 contiguous values of torch.int16, got 999 of",
    ),
    "digits of int32": (
        lambda: digits(values(dtype=torch.int32)),
        "values: expected 1000 .* torch.int16, got 1000 of torch.int32",
    ),
    "digits strided": (lambda: digits(columns(INT16)), r"values: .*strides \(2,\)"),
    "base": (lambda: digits(values(dtype=INT16), base=1026), "got base 1026, 22"),
    "no digits": (lambda: digits(values(dtype=INT16), num_digits=0), "at least 1, got 0"),
    "no digits given words": (
        lambda: digits(values(dtype=INT16), int64(64), num_digits=0),
        "1 digit or more .* got base 7, 0 digits",
    ),
    "no digits to unpack": (
        lambda: ops.unpack_digits(int64(64), values(dtype=INT16), base=7, offset=3, num_digits=0),
        "1 digit or more .* got base 7, 0 digits",
    ),
    "overfull": (lambda: digits(values(dtype=INT16), num_digits=23), "base 7, 23"),
    "words": (
        lambda: digits(values(dtype=INT16), int64(63)),
        "expected 64 contiguous values of torch.int64, got 63 of",
    ),
    "unpack words": (lambda: undigits(int64(32)), "expected 64 .* got 32 of"),
    "unpack to": (lambda: undigits(int64(64), torch.int32), "torch.int16, got 1000"),
}


@pytest.mark.parametrize("name", list(CASES))
def test_wrong_arguments(name: str) -> None:
    call, message = CASES[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_unknown_wire_format() -> None:
    with pytest.raises(ValueError, match=r"expected one of .*trit5.* got 'trit6'"):
        encode(wire_format="trit6")


def on(device: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


def calls(first: str, second: str) -> list[Callable[[], object]]:
    """Return calls of every op with each of its tensors in turn on the second device."""
    how = {"base": 7, "offset": 3, "num_digits": 22}
    return [
        lambda: ops.statistics([on(first, 3), on(second, 3)]),
        lambda: ops.scales([on(first, 3), on(second, 3)]),
        lambda: ops.ternarize([on(first, N)], on(second, 1), key=KEY, streams=[3]),
        lambda: ops.ternarize(
            [on(first, N)], on(first, 1), on(second, BYTES, dtype=UINT8), key=KEY, streams=[3]
        ),
        lambda: ops.unpack_sum(
            on(first, 1, BYTES, dtype=UINT8), "trit5", on(second, N, dtype=INT16)
        ),
        lambda: ops.decode_mean(on(second, 1, BYTES, dtype=UINT8), on(first, 1), [on(first, N)]),
        lambda: ops.decode_mean(on(first, 1, BYTES, dtype=UINT8), on(second, 1), [on(first, N)]),
        lambda: ops.decode_mean(
            on(first, 1, 2 * BYTES, dtype=UINT8), on(first, 2), [on(first, N), on(second, N)]
        ),
        lambda: ops.dequantize(on(second, N, dtype=INT16), on(first, 1), [on(first, N)]),
        lambda: ops.dequantize(on(first, N, dtype=INT16), on(second, 1), [on(first, N)]),
        lambda: ops.pack_digits(
            on(first, N, dtype=INT16), words=on(second, 64, dtype=torch.int64), **how
        ),
        lambda: ops.unpack_digits(
            on(first, 64, dtype=torch.int64), on(second, N, dtype=INT16), **how
        ),
    ]


@pytest.mark.parametrize("number", range(len(calls("cpu", "meta"))))
@pytest.mark.parametrize("devices", [("cpu", "meta"), ("meta", "cpu")])
def test_tensors_on_two_devices(devices: tuple[str, str], number: int) -> None:
    """``meta`` stands for any second device, which a machine without a GPU has too."""
    with pytest.raises(ValueError, match=r"expected a tensor on (cpu, got meta|meta, got cpu)"):
        calls(*devices)[number]()


@pytest.mark.parametrize("divisor", [0, -1, 2**32 + 2])
def test_divisor_out_of_range(divisor: int) -> None:
    payload = encode()
    with pytest.raises(ValueError, match=f"divisor: expected 1 to .* got {divisor}"):
        ops.decode_mean(payload[None], torch.ones(1), [torch.empty(1000)], divisor=divisor)
