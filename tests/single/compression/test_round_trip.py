"""Encoding and decoding by ``TernaryCodec``: what arrives, and how large it is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression import TernaryCodec, TernaryConfig, local_scales

SCALE_GROUPS = st.integers(0, 6).map(lambda groups: 128 * groups)


def encode(codec: TernaryCodec, values: Tensor, scales: Tensor, step: int = 0) -> Tensor:
    size = codec.payload_bytes(values.numel())
    payload = torch.empty(size, dtype=torch.uint8, device=values.device)
    return codec.encode([values], scales, [1], step, payload)


def per_value(scales: Tensor, scale_group_size: int, numel: int) -> Tensor:
    index = torch.arange(numel, device=scales.device) // (scale_group_size or max(1, numel))
    return scales[index]


@given(
    numel=st.integers(0, 2000),
    scale_group_size=SCALE_GROUPS,
    wire_format=st.sampled_from(ops.WIRE_FORMATS),
    rule=st.sampled_from(["rms", "std", "max"]),
    feedback=st.booleans(),
    seed=st.integers(0, 999),
)
def test_decoded_values_are_minus_scale_zero_or_scale(
    device, gradient, numel, scale_group_size, wire_format, rule, feedback, seed
) -> None:
    config = TernaryConfig(
        wire_format=wire_format,
        scale_rule=rule,
        scale_group_size=scale_group_size,
        error_feedback=feedback,
    )
    codec, values = TernaryCodec(config, 3), gradient(numel, seed=seed).to(device)
    scales = local_scales([values], config)
    assert scales.numel() == codec.num_scales(numel)
    payload = encode(codec, values, scales, seed)
    out = torch.full_like(values, 77.0)
    codec.decode(payload[None], scales, [out])
    scale = per_value(scales, scale_group_size, numel)
    assert bool(((out == 0) | (out.abs() == scale)).all())
    assert bool((out * values >= 0).all())
    if feedback:  # the nearest code: its distance is at most half a scale, or the excess
        excess = (values.abs() - scale).clamp_min(0)
        assert bool(((values - out).abs() <= (scale * 0.50001 + excess)).all())
    codes = torch.empty(numel, dtype=torch.int16, device=device)
    assert torch.equal(codec.unpack(payload, codes) * scale, out)


@given(num_ranks=st.integers(1, 20), numel=st.integers(1, 1500), scale_group_size=SCALE_GROUPS)
def test_mean_of_payloads_is_the_dequantized_sum(
    device, dtype, gradient, num_ranks, numel, scale_group_size
) -> None:
    config = TernaryConfig(scale_group_size=scale_group_size)
    ranks = [gradient(numel, dtype, seed=r).to(device) for r in range(num_ranks)]
    scales = torch.stack([local_scales([values], config) for values in ranks]).amax(0)
    codecs = [TernaryCodec(config, rank) for rank in range(num_ranks)]
    payloads = torch.stack([encode(c, v, scales) for c, v in zip(codecs, ranks, strict=True)])
    mean, again = torch.empty_like(ranks[0]), torch.empty_like(ranks[0])
    codecs[0].decode(payloads, scales, [mean], num_ranks)
    sums = torch.empty(numel, dtype=torch.int16, device=device)
    ops.unpack_sum(payloads, config.wire_format, sums)
    codecs[0].dequantize(sums, scales, [again], num_ranks)
    assert torch.equal(mean, again)
    single = torch.empty_like(sums)
    rows = [c.unpack(p, single).clone() for c, p in zip(codecs, payloads, strict=True)]
    assert torch.equal(torch.stack(rows).sum(0).to(torch.int16), sums)
    exact = sums.double() * per_value(scales, scale_group_size, numel).double() / num_ranks
    info = torch.finfo(torch.float32 if dtype == torch.float64 else dtype)
    room = info.eps * scales.max() + info.tiny  # fp64 is decoded in fp32
    assert bool(((mean.double() - exact).abs() <= room).all())


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_scale_that_is_not_finite_decodes_to_nan(device, dtype, bad) -> None:
    """NaN in the whole scale group, as after an fp32 allreduce; others are intact."""
    config = TernaryConfig(scale_group_size=128)
    codec = TernaryCodec(config, 0)
    values = torch.ones(300, device=device, dtype=dtype)
    scales = torch.tensor([1.0, bad, 1.0], device=device)
    out = torch.zeros_like(values)
    codec.decode(encode(codec, values, scales)[None], scales, [out])
    nan = torch.zeros(300, dtype=torch.bool, device=device)
    nan[128:256] = True
    assert torch.equal(out.isnan(), nan)
    assert bool((out[~nan] == 1).all())


def test_payload_bytes_follow_the_formats() -> None:
    """Blocks of 128 bytes hold 640 values (trit5) or 512 (crumb4)."""
    for name, block, ratio in (("trit5", 640, 20.0), ("crumb4", 512, 16.0)):
        codec = TernaryCodec(TernaryConfig(wire_format=name), 0)
        sizes = [codec.payload_bytes(n) for n in (0, 1, block, block + 1, 9 * block)]
        assert sizes == [0, 128, 128, 256, 9 * 128]
        assert codec.compression_ratio(1_000_000) == pytest.approx(ratio, rel=1e-3)


def test_the_format_by_hand() -> None:
    """Byte j of a block holds values j, j + 128, ...; digit = code + 1, least first."""
    config = TernaryConfig(scale_rule="max")
    values = torch.zeros(641)
    values[[3, 3 + 128, 3 + 512, 127, 640]] = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    payload = encode(TernaryCodec(config, 0), values, torch.ones(1))
    zero = 1 + 3 + 9 + 27 + 81
    expected = torch.full((256,), zero)
    expected[3], expected[127], expected[128] = zero + 1 - 3 + 81, zero - 1, zero + 1
    assert payload.tolist() == expected.tolist()
    crumb = TernaryConfig(scale_rule="max", wire_format="crumb4")
    payload = encode(TernaryCodec(crumb, 0), values[:512], torch.ones(1))
    expected = torch.full((128,), 1 + 4 + 16 + 64)
    expected[3], expected[127] = 85 + 1 - 4, 85 - 1
    assert payload.tolist() == expected.tolist()
