"""Bytes a rank sends, against the formulas of the collectives' algorithms."""

import pytest

from knet_hvd import ops
from knet_hvd.compression import LevelsCodec, TernaryConfig
from knet_hvd.data_parallel.allreduce.words import word_bits
from knet_hvd.performance import (
    ALLGATHER,
    ALLTOALL,
    FP16,
    FP32,
    allgather_bytes,
    allreduce_bytes,
    alltoall_bytes,
    cheapest,
)
from knet_hvd.performance.exchange_formulas import FloatAllreduce

RANKS = range(2, 513)


def level_bits(num_ranks: int) -> float:
    return LevelsCodec(num_ranks).bits_per_value


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 16, 512])
def test_collectives_by_counting_messages(num_ranks) -> None:
    """A ring allreduce sends 2 (N - 1) of N shards, and so on."""
    shards = [100.0 / num_ranks] * (num_ranks - 1)
    assert alltoall_bytes(100, num_ranks) == pytest.approx(sum(shards))
    assert allreduce_bytes(100, num_ranks) == pytest.approx(2 * sum(shards))
    assert allgather_bytes(100, num_ranks) == pytest.approx(100 * len(shards))


@pytest.mark.parametrize(
    ("num_ranks", "gathered", "sharded", "full"),
    [(2, 1.6, 1.985, 32.0), (4, 4.8, 3.6, 48.0), (16, 24.0, 6.5, 60.0)],
)
def test_bits_a_value_of_the_exchanges(num_ranks, gathered, sharded, full) -> None:
    """The design's table: 1.6 (N-1), (N-1)/N (1.6 + levels), 64 (N-1)/N."""
    assert allgather_bytes(1.6, num_ranks) == pytest.approx(gathered)
    bits = alltoall_bytes(1.6 + level_bits(num_ranks), num_ranks)
    assert bits == pytest.approx(sharded, abs=0.001)
    assert allreduce_bytes(32, num_ranks) == pytest.approx(full)


@pytest.mark.parametrize("code_bits", [1.6, 2.0])
def test_the_cheapest_formula(code_bits: float) -> None:
    """All-gather for two ranks, all-to-all from three on; always the cheaper one."""
    formulas = (ALLGATHER, ALLTOALL)
    assert cheapest(formulas, 1, code_bits) == ALLGATHER
    assert cheapest(formulas, 2, code_bits) == ALLGATHER
    for num_ranks in RANKS[1:]:
        assert cheapest(formulas, num_ranks, code_bits) == ALLTOALL
        gathered = allgather_bytes(code_bits, num_ranks)
        assert alltoall_bytes(code_bits + level_bits(num_ranks), num_ranks) <= gathered


def test_a_tie_goes_to_the_first() -> None:
    other = FloatAllreduce("as many bits", 16)
    assert cheapest((FP16, other, FP32), 2, 1.6) == FP16
    assert cheapest((other, FP16, FP32), 2, 1.6) == other


def test_code_bits_are_those_of_the_payloads() -> None:
    for name, bits in (("trit5", 1.6), ("crumb4", 2.0)):
        config = TernaryConfig(wire_format=name)
        million = ops.payload_bytes(1_000_000, config.wire_format)
        assert 8 * million / 1e6 == pytest.approx(bits, rel=1e-3)


def test_summable_words_beat_half_precision() -> None:
    """Path B's words are smaller than fp16 wherever its sums are still exact."""
    for average in (False, True):
        for num_ranks in (2, 4, 8, 16, 64):
            codec = LevelsCodec(num_ranks, word_bits(average, num_ranks))
            assert codec.bits_per_value < 16
