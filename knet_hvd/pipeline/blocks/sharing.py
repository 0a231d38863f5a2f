"""Parameters that two stages would share."""

from collections.abc import Sequence

from torch import nn


def check_not_shared(
    blocks: Sequence[nn.Module], prefixes: Sequence[str], stage_of_block: Sequence[int]
) -> None:
    """Raise if two stages hold one parameter: each would update a copy of its own.

    Args:
        blocks: Of the whole network.
        prefixes: What precedes the names of each block's parameters.
        stage_of_block: The stage of each block.

    Raises:
        ValueError: Names the parameter under both names.
    """
    seen: dict[int, tuple[int, str]] = {}
    for block, prefix, stage in zip(blocks, prefixes, stage_of_block, strict=True):
        for key, parameter in block.named_parameters():
            other_stage, other_name = seen.setdefault(id(parameter), (stage, prefix + key))
            if other_stage != stage:
                raise ValueError(
                    f"model: expected parameters that one stage holds, got {other_name} in stage "
                    f"{other_stage} and the same parameter as {prefix + key} in stage {stage}: "
                    "put both into one stage (cuts), or give each a parameter of its own"
                )
