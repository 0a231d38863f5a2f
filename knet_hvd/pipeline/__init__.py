"""Train a network that is cut into stages, one on each rank.

Blocks become stages (``splitting``, ``stage``), a ``schedule`` or the decoupled runner
orders what a stage does, ``decouplers`` say where its gradient comes from, and
``knet_hvd.comm`` carries activations and gradients.
"""

from knet_hvd.pipeline.config import PipelineConfig
from knet_hvd.pipeline.trainer import PipelineTrainer

__all__ = ["PipelineConfig", "PipelineTrainer"]
