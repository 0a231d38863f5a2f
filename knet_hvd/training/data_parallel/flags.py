"""The command line of the data-parallel job."""

from collections.abc import Sequence

import tyro

from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.help import show_help_if_asked


def parse_config(arguments: Sequence[str], description: str) -> TrainingConfig:
    """Return the configuration that flags describe.

    Args:
        arguments: The flags, without the program's name.
        description: Of the program, for `--help`.

    Raises:
        SystemExit: If a flag is unknown or `--help` was asked for.
        ValueError: If a setting is out of range.
    """
    show_help_if_asked(arguments, TrainingConfig(), description)
    return tyro.cli(TrainingConfig, args=arguments, description=description)
