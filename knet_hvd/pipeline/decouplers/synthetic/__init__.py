"""Synthetic gradients: as published, with true targets, corrected, and with labels."""

from knet_hvd.pipeline.decouplers.synthetic.conditioned import Conditioned
from knet_hvd.pipeline.decouplers.synthetic.settings import Synthetic

__all__ = ["Conditioned", "Synthetic"]
