"""Train a network that is cut into stages, one on each rank.

``Pipeline`` is what a script of one's own uses. Blocks become stages (``placement``,
``stage``), ``runners`` order what a stage does, ``decouplers`` say where its gradient
comes from, and ``knet_hvd.comm`` carries activations and gradients.
"""

from knet_hvd.lazy import lazy_names

__all__ = [
    "Backprop",
    "Conditioned",
    "Delayed",
    "LinkSettings",
    "Local",
    "Pipeline",
    "Synthetic",
]

__getattr__ = lazy_names(__name__, "api.pipeline", "decouplers", "link_settings")
