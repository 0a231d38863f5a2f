"""The names of encodings, which `encodings` describes; read by settings, so without torch."""

from typing import Literal, TypeAlias, get_args

Encoding: TypeAlias = Literal["fp32", "bf16", "relu-sparse"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
