"""Decouplers: where a stage's gradient comes from, one published method a file."""

from knet_hvd.pipeline.decouplers.backprop import Backprop
from knet_hvd.pipeline.decouplers.base import Decoupler
from knet_hvd.pipeline.decouplers.conditioned import Conditioned
from knet_hvd.pipeline.decouplers.delayed import Delayed
from knet_hvd.pipeline.decouplers.local import Local
from knet_hvd.pipeline.decouplers.local_loss import AuxiliaryConfig
from knet_hvd.pipeline.decouplers.loss_head import Objective
from knet_hvd.pipeline.decouplers.stashed import Stashed
from knet_hvd.pipeline.decouplers.synthesizer import SynthesizerConfig
from knet_hvd.pipeline.decouplers.synthetic import Synthetic

__all__ = [
    "AuxiliaryConfig",
    "Backprop",
    "Conditioned",
    "Decoupler",
    "Delayed",
    "Local",
    "Objective",
    "Stashed",
    "SynthesizerConfig",
    "Synthetic",
]
