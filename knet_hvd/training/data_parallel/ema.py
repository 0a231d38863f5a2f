"""Moving average of a model's parameters, which the TernGrad paper evaluates."""

from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(slots=True)
class MovingAverage:
    """Exponential moving average, as tf.train.ExponentialMovingAverage has it.

    Attributes:
        decay: What is kept of the average in a step.
        shadow: The averages by parameter name.
    """

    decay: float
    shadow: dict[str, Tensor] = field(default_factory=dict)

    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the parameters; faster in the first steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            value = parameter.detach()
            if name in self.shadow:
                self.shadow[name].lerp_(value, 1 - decay)
            else:
                self.shadow[name] = value.clone()
