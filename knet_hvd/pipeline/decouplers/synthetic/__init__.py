"""Synthetic gradients: as published, from true gradients, corrected, and conditioned on targets."""

from knet_hvd.pipeline.decouplers.synthetic.conditioned import Conditioned
from knet_hvd.pipeline.decouplers.synthetic.settings import Synthetic

__all__ = ["Conditioned", "Synthetic"]
