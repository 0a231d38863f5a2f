"""Stages and optimizers refuse what they cannot be."""

from typing import Any

import pytest
from torch import nn

from knet_hvd.pipeline.optimizers import make_optimizer
from knet_hvd.pipeline.stage import Stage


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_optimizer(nn.Linear(2, 2), "lamb", 0.1), "got 'lamb'"),
        (lambda: Stage(2, 2, nn.Sequential(nn.ReLU()), None), "expected 0 to 1, got 2"),
        (lambda: Stage(0, 2, nn.Sequential(), None), "at least one block, got none"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
