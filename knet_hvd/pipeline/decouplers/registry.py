"""The decouplers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knet_hvd.pipeline.decouplers.backprop import Backprop
from knet_hvd.pipeline.decouplers.base import Decoupler
from knet_hvd.pipeline.decouplers.conditioned import Conditioned
from knet_hvd.pipeline.decouplers.delayed import Delayed
from knet_hvd.pipeline.decouplers.local import Local
from knet_hvd.pipeline.decouplers.stashed import Stashed
from knet_hvd.pipeline.decouplers.synthetic import Synthetic

if TYPE_CHECKING:
    from knet_hvd.training.pipeline.config import PipelineConfig

_CLASSES: dict[str, type[Decoupler]] = {
    "backprop": Backprop,
    "synthetic": Synthetic,
    "conditioned": Conditioned,
    "local": Local,
    "delayed": Delayed,
}


def decoupler_class(name: str) -> type[Decoupler]:
    """Return a decoupler's class, which says whether gradients return.

    Args:
        name: As in the configuration.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in _CLASSES:
        raise ValueError(f"unknown decoupler {name!r}: choose one of {', '.join(_CLASSES)}")
    return _CLASSES[name]


def make_decoupler(config: PipelineConfig, shape: tuple[int, ...], num_labels: int) -> Decoupler:
    """Return the decoupler of a stage that is not the last.

    Args:
        config: The job's configuration.
        shape: The stage's output, without the batch.
        num_labels: Classes.

    Raises:
        ValueError: If there is none of that name.
    """
    kind = decoupler_class(config.decoupler)
    if kind is Synthetic:
        return Synthetic(shape, config.synthesizer)
    if kind is Conditioned:
        return Conditioned(shape, config.synthesizer, num_labels)
    if kind is Delayed:
        late = Delayed if config.recompute else Stashed
        return late(config.predict_weights)
    if kind is Local:
        return Local(shape, config.auxiliary, num_labels)
    return kind()
