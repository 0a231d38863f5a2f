"""A checksum of parameters, to see whether two runs gave the same."""

import hashlib

import torch
from torch import nn


def parameters_sha256(module: nn.Module) -> str:
    """Return the SHA-256 of all parameters' bytes.

    Args:
        module: Its parameters are taken in its own order, from any device.
    """
    digest = hashlib.sha256()
    for parameter in module.parameters():
        flat = parameter.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
