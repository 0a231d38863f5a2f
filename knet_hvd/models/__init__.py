"""Networks as ordered blocks: a pipeline can be cut between any two of them."""

from knet_hvd.models.block_builder import BlockBuilder
from knet_hvd.models.blocks import num_parameters
from knet_hvd.models.checksum import parameters_sha256
from knet_hvd.models.registry import MODELS, build_model

__all__ = ["MODELS", "BlockBuilder", "build_model", "num_parameters", "parameters_sha256"]
