"""Networks as ordered blocks: a pipeline can be cut between any two of them."""

from typing import TYPE_CHECKING

from knet_hvd.lazy import lazy_names
from knet_hvd.models.registry import MODELS, ModelFactory, build_model

if TYPE_CHECKING:
    from knet_hvd.models.blocks import num_parameters
    from knet_hvd.models.checksum import parameters_sha256

__getattr__ = lazy_names(__name__, "blocks", "checksum")

__all__ = [
    "MODELS",
    "ModelFactory",
    "build_model",
    "num_parameters",
    "parameters_sha256",
]
