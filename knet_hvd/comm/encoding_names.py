"""The names of encodings, which `encodings` describes; read by settings, so without torch."""

from typing import Literal, TypeAlias, get_args

Float32Encoding: TypeAlias = Literal["fp32", "bf16", "relu-sparse"]
"""Those among which one can choose for activations and gradients of float32."""
Encoding: TypeAlias = Literal["fp32", "bf16", "relu-sparse", "raw"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
