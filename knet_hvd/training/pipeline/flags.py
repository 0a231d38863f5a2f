"""The command line of the pipeline job: `--decoupler NAME` chooses which settings there are."""

from collections.abc import Sequence

import tyro

from knet_hvd.pipeline.decouplers import DECOUPLERS, Decoupler, decoupler_named
from knet_hvd.training.help import show_help_if_asked
from knet_hvd.training.pipeline.config import PipelineConfig

_FLAG = "--decoupler"


def parse_config(arguments: Sequence[str], description: str) -> PipelineConfig:
    """Return the configuration that flags describe.

    `--decoupler NAME` stands for itself; `--decoupler.SETTING` are the settings of that
    one only, so that a setting of another one is an unknown flag.

    Args:
        arguments: The flags, without the program's name.
        description: Of the program, for `--help`.

    Raises:
        SystemExit: If a flag is unknown or `--help` was asked for.
        ValueError: If there is no such decoupler, or a setting is out of range.
    """
    decoupler, others = _take_decoupler(arguments)
    names = ", ".join(DECOUPLERS)
    about = (
        f"{description}\n--decoupler NAME: one of {names};\n"
        f"--help after it shows its settings (here those of {decoupler.name}, as --decoupler.*)."
    )
    default = PipelineConfig(decoupler=decoupler)
    show_help_if_asked(others, default, about)
    return tyro.cli(PipelineConfig, args=others, default=default, description=about)


def _take_decoupler(arguments: Sequence[str]) -> tuple[Decoupler, list[str]]:
    """Return the decoupler with its defaults, and the flags without its name."""
    kind: type[Decoupler] = type(PipelineConfig().decoupler)
    others: list[str] = []
    flags = iter(arguments)
    for flag in flags:
        name, equals, value = flag.partition("=")
        if name != _FLAG:
            others.append(flag)
            continue
        kind = decoupler_named(value if equals else next(flags, ""))
    return kind(), others
