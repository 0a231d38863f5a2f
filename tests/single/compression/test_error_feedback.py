"""Error feedback: nothing is lost, and residuals stay bounded."""

import pytest
import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression import ErrorFeedback, TernaryCodec, TernaryConfig, local_scales
from knet_hvd.compression.error_feedback import choose_residual

NAME = "conv.weight"
CONFIG = TernaryConfig(error_feedback=True)


def sent_by(values: Tensor, scales: Tensor, config: TernaryConfig, step: int) -> Tensor:
    """Return what this rank's payload decodes to, fp32."""
    codec = TernaryCodec(config, 0)
    size = codec.payload_bytes(values.numel())
    payload = torch.empty(size, dtype=torch.uint8, device=values.device)
    codec.encode([values], scales, [0], step, payload)
    sent = torch.empty_like(values)
    codec.decode(payload[None], scales, [sent])
    return sent


def test_gradient_and_residual_are_sent_or_kept_exactly(device) -> None:
    """On a grid of 2^-12 all sums are exact, so that equality is."""
    feedback, residual = ErrorFeedback(), torch.zeros(10, 100, device=device)
    scales = torch.tensor([1.5], device=device)
    for step in range(20):
        generator = torch.Generator().manual_seed(step)
        grid = torch.randint(-(2**14), 2**14, (10, 100), generator=generator)
        gradient = (grid.float() * 2.0**-12).to(device)
        corrected = feedback.add_to(NAME, gradient)
        sent = sent_by(corrected, scales, CONFIG, step)
        assert bool(sent.any())
        feedback.update(NAME, corrected, sent)
        kept = feedback.state_dict()[NAME]
        assert torch.equal(gradient + residual, sent + kept)
        residual = kept
    assert feedback.norm() == pytest.approx(float(residual.double().norm()), rel=1e-12)


def test_the_gradient_itself_is_left_alone(device, dtype) -> None:
    feedback, gradient = ErrorFeedback(), torch.ones(600, device=device, dtype=dtype)
    for _ in range(2):
        corrected = feedback.add_to(NAME, gradient)
        assert corrected.dtype == torch.float32
        feedback.update(NAME, corrected, torch.full_like(corrected, 0.25))
        assert bool((gradient == 1).all())
    assert feedback.state_dict()[NAME].unique().tolist() == [1.5]


def run(num_steps: int, config: TernaryConfig, stochastic: bool) -> tuple[float, float]:
    """Return the largest ratio |new residual| / |corrected| and the last norm.

    Gradients are [2000] standard normal plus a constant part, as SGD's are.
    """
    feedback, worst = ErrorFeedback(), 0.0
    generator = torch.Generator().manual_seed(3)
    constant = torch.randn(2000, generator=generator) * 0.3
    for step in range(num_steps):
        gradient = torch.randn(2000, generator=generator) + constant
        corrected = feedback.add_to(NAME, gradient)
        norm, scales = float(corrected.norm()), local_scales([corrected], config)
        payload = ops.ternarize(
            [corrected], scales, key=(0, 0, step), streams=[0], stochastic=stochastic
        )
        sent = torch.empty_like(corrected)
        ops.decode_mean(payload[None], scales, [sent])
        error = (corrected - sent).abs()
        if not stochastic:  # half a scale is met to within 2^-17 of the scale
            assert bool((error <= corrected.abs() + scales * 2.0**-16).all())
        feedback.update(NAME, corrected, sent)
        worst = max(worst, feedback.norm() / norm)
    return worst, feedback.norm()


def test_residuals_stay_bounded_over_500_steps() -> None:
    """Each step keeps at most q < 1 of the norm: |r| <= q / (1 - q) * largest |g|."""
    ratio, norm = run(500, CONFIG, stochastic=False)
    assert ratio < 0.6
    largest = 1.3 * 2000**0.5
    assert norm < ratio / (1 - ratio) * largest


def test_stochastic_codes_would_not_shrink_the_residual() -> None:
    ratio, norm = run(100, TernaryConfig(), stochastic=True)
    assert ratio > 1.0
    assert norm > 40 * 2000**0.5


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_step_that_is_not_finite_keeps_the_residual(device, bad) -> None:
    feedback, gradient = ErrorFeedback(), torch.ones(700, device=device)
    feedback.update(NAME, feedback.add_to(NAME, gradient), gradient * 0.5)
    before = feedback.state_dict()[NAME]
    gradient[5] = bad
    corrected = feedback.add_to(NAME, gradient)
    sent = sent_by(corrected, local_scales([corrected], CONFIG), CONFIG, 1)
    assert bool(sent.isnan().all())
    feedback.update(NAME, corrected, sent)
    assert torch.equal(feedback.state_dict()[NAME], before)
    assert bool((before == 0.5).all())


def test_state_makes_a_round_trip_by_copy(device) -> None:
    first, second = ErrorFeedback(), ErrorFeedback()
    gradient = torch.ones(3, 4, device=device)
    for name in ("a", "b"):
        first.update(name, first.add_to(name, gradient), gradient * 0.25)
    state = first.state_dict()
    second.load_state_dict(state)
    state["a"].zero_()
    assert first.norm() == second.norm() == pytest.approx(0.75 * 24**0.5)
    assert torch.equal(first.add_to("a", gradient), gradient * 1.75)
    assert torch.equal(second.add_to("a", gradient), gradient * 1.75)
    second.load_state_dict({})
    assert second.norm() == 0.0


def test_clear_forgets_one_parameter() -> None:
    feedback, gradient = ErrorFeedback(), torch.ones(4)
    for name in ("a", "b"):
        feedback.update(name, feedback.add_to(name, gradient), torch.zeros(4))
    feedback.clear("a")
    feedback.clear("never seen")
    assert list(feedback.state_dict()) == ["b"]
    assert torch.equal(feedback.add_to("a", gradient), gradient)


def test_the_residual_is_chosen_where_the_values_are(device) -> None:
    """As on the CPU: what is finite replaces the residual, anything else leaves it."""
    before = torch.full((2, 3), 7.0, device=device)
    for value, expected in ((1.0, 1.0), (torch.nan, 7.0), (-torch.inf, 7.0)):
        missed = torch.ones(6, device=device)
        missed[3] = value
        found = choose_residual(torch.isfinite(missed).all(), missed, before)
        assert found.tolist() == [expected] * 6
    assert choose_residual(torch.tensor(False, device=device), missed, None).tolist() == [0.0] * 6


def test_no_value_is_read_on_another_device() -> None:
    """A tensor on ``meta`` has no values: a step that waited for one would raise."""
    feedback = ErrorFeedback()
    for _ in range(2):
        corrected = feedback.add_to("weight", torch.ones(1000, device="meta"))
        feedback.update("weight", corrected, torch.ones(1000, device="meta"))
    assert feedback.residuals["weight"].shape == (1000,)
