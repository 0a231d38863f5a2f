"""Train a network that is cut into stages, one on each rank.

``Pipeline`` is what a script of one's own uses. Blocks become stages (``placement``,
``stage``), ``runners`` order what a stage does, ``decouplers`` say where its gradient
comes from, and ``knet_hvd.comm`` carries activations and gradients.
"""

from typing import TYPE_CHECKING

from knet_hvd.lazy import lazy_names

if TYPE_CHECKING:
    from knet_hvd.pipeline.api.pipeline import Pipeline
    from knet_hvd.pipeline.decouplers import Backprop, Conditioned, Delayed, Local, Synthetic
    from knet_hvd.pipeline.link_settings import LinkSettings

__getattr__ = lazy_names(__name__, "api.pipeline", "decouplers", "link_settings")

__all__ = [
    "Backprop",
    "Conditioned",
    "Delayed",
    "LinkSettings",
    "Local",
    "Pipeline",
    "Synthetic",
]
