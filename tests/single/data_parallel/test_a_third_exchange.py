"""An exchange is its class: one entry in the registry, and everything else knows it."""

from dataclasses import dataclass, replace

import pytest
import torch

from knet_hvd.compression import TernaryCodec, TernaryConfig
from knet_hvd.data_parallel.calibration.auto import advised_choice
from knet_hvd.data_parallel.calibration.calibrate import calibrate
from knet_hvd.data_parallel.calibration.loopback import LoopbackCollectives
from knet_hvd.data_parallel.exchanges import registry
from knet_hvd.data_parallel.exchanges.base import CodedBucket, Exchange, Reduction
from knet_hvd.performance import FP32, ExchangeFormula, TimeCurve, advise


@dataclass(frozen=True, slots=True)
class QuarterBit(ExchangeFormula):
    """A quarter of a bit a value, whatever the number of ranks."""

    def wire_bits(self, num_ranks: int, code_bits: float) -> float:
        return 0.25

    def num_messages(self, num_ranks: int) -> int:
        return 1

    def num_decodes(self, num_ranks: int) -> int:
        return num_ranks


class ToyExchange(Exchange):
    """Every rank decodes nothing but its own codes."""

    __slots__ = ()
    formula = QuarterBit("toy")

    def run(self, coded: CodedBucket) -> Reduction:
        for plan, payload in coded.encoded():
            total = yield self.collectives.sum(torch.zeros(1), f"codes.{plan.name}")
            assert total.numel() == 1
            self.codec.decode(payload.unsqueeze(0), coded.scales_of(plan), coded.outputs_of(plan))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.EXCHANGES, "toy", ToyExchange)


@pytest.mark.usefixtures("toy")
def test_it_has_a_name() -> None:
    registry.check_exchange("toy")
    with pytest.raises(ValueError, match="expected auto, allgather, alltoall, toy; got 'ring'"):
        registry.check_exchange("ring")


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("num_ranks", [2, 4, 64])
def test_auto_takes_it_where_it_sends_least(num_ranks: int) -> None:
    codec = TernaryCodec(TernaryConfig(), 0)
    chosen = registry.make_exchange("auto", codec, LoopbackCollectives(num_ranks), num_ranks)
    assert isinstance(chosen, ToyExchange)


@pytest.mark.usefixtures("toy")
def test_calibration_cost_model_and_advice_know_it() -> None:
    model = calibrate(LoopbackCollectives(4), limit_s=0.001, time_large=False)
    assert list(model.methods) == ["fp32", "fp16", "allgather", "alltoall", "toy"]
    assert model.codec_s["toy"] > 0
    curves = {"fp32": 100.0, "fp16": 50.0, "allgather": 40.0, "alltoall": 30.0, "toy": 1.0}
    methods = {
        name: replace(cost, curve=TimeCurve((1.0, 1e6), (1e-6, curves[name])), tensor_s=0.0)
        for name, cost in model.methods.items()
    }
    model = replace(model, methods=methods, codec_s=dict.fromkeys(methods, 0.0))
    advice = advise(model, 1e6)
    assert (advice.method, advice.compresses) == ("toy", True)
    assert advised_choice(advice, "auto") == ("ternary", "toy")
    larger = model.at_ranks(8)
    assert larger.methods["toy"].curve.slope_s == pytest.approx(1e-6)
    growth = FP32.wire_bits(8, 1.6) / FP32.wire_bits(4, 1.6)
    assert larger.methods["fp32"].curve.slope_s == pytest.approx(1e-4 * growth)
