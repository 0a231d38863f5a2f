"""What goes wrong with the hook before any rank has met another."""

import pytest
import torch
from torch import nn

from knet_hvd import KnetError, TernaryConfig
from knet_hvd.ddp import TernaryState, ternary_hook

NET = nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ternary": "max"}, TypeError, "expected a TernaryConfig, got 'max'"),
        ({"error_feedback": 1}, TypeError, "error_feedback: expected True or False, got 1"),
        ({"exchange": "ring"}, ValueError, "expected auto, allgather, alltoall; got 'ring'"),
        ({"payload_values": 0}, ValueError, "payload_values: expected at least 1, got 0"),
        ({"timeout_s": -1}, ValueError, "timeout_s: expected seconds > 0, got '-1'"),
        ({"step_timeout_s": 0}, ValueError, "step_timeout_s: expected > 0, got 0"),
        ({"named_parameters": NET}, TypeError, "pass model.named_parameters()"),
        ({"named_parameters": NET.parameters()}, TypeError, "got a parameter without a name"),
    ],
)
def test_wrong_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        TernaryState(**arguments)
    assert message in str(caught.value)


def test_error_feedback_takes_the_place_of_the_setting() -> None:
    ternary = TernaryConfig(seed=7, error_feedback=True)
    assert TernaryState(ternary).config == ternary
    assert TernaryState(ternary, error_feedback=False).config == TernaryConfig(seed=7)


def test_a_loaded_state_waits_for_the_ranks_to_meet() -> None:
    """Lightning loads checkpoints before it has started torch.distributed."""
    state = TernaryState(error_feedback=True)
    assert state.state_dict() == {"step": 0, "residuals": {}}
    saved = {"step": 3, "residuals": {"weight": torch.ones(2)}}
    state.load_state_dict(saved)
    assert state.state_dict() == saved


def test_pythons_reducer_is_refused() -> None:
    """With ``optimize_ddp = "python_reducer"`` PyTorch passes a gradient and its parameter."""
    with pytest.raises(KnetError, match="python_reducer"):
        ternary_hook(TernaryState(), (torch.ones(2), torch.ones(2)))


def test_collectives_need_torch_distributed() -> None:
    from knet_hvd.collectives.torch_distributed import TorchCollectives

    with pytest.raises(KnetError, match="not initialized"):
        TorchCollectives()
