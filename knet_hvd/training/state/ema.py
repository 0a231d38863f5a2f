"""Moving average of a model's parameters, which the TernGrad paper evaluates."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(slots=True)
class ParameterEma:
    """Exponential moving average, as tf.train.ExponentialMovingAverage has it.

    Attributes:
        decay: What is kept of the average in a step; 0 keeps no average.
        shadow: The averages by parameter name.
    """

    decay: float
    shadow: dict[str, Tensor] = field(default_factory=dict)

    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the parameters; faster in the first steps."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            value = parameter.detach()
            if name in self.shadow:
                self.shadow[name].lerp_(value, 1 - decay)
            else:
                self.shadow[name] = value.clone()

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Have a model use the averages within; its parameters are as before afterwards."""
        parameters = {
            name: parameter for name, parameter in model.named_parameters() if name in self.shadow
        }
        own = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(self.shadow[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(own[name])
