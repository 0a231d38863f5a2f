"""The text of `--help`: settings in groups, each with a line that says what it is about.

Imports nothing heavy. Values are parsed by tyro, which knows groups only as parts of a name.
"""

import argparse
import ast
import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

from knet_hvd.training.cli import job_name, report
from knet_hvd.training.config import JobConfig


@dataclass(frozen=True, slots=True)
class Group:
    """Settings that belong together.

    Attributes:
        title: Of the group.
        about: What its settings are about, in a line.
        names: Fields of a job's configuration; a job need not have all of them.
    """

    title: str
    about: str
    names: tuple[str, ...]


GROUPS = (
    Group(
        "data",
        "What is trained on, and how its images are shown to the network.",
        ("data", "data_dir", "batch_size", "augment", "crop_size", "inputs"),
    ),
    Group(
        "network",
        "What is trained.",
        ("model", "width", "device", "precision"),
    ),
    Group(
        "training",
        "How long it learns, and how fast.",
        (
            *("epochs", "max_steps", "optimizer", "learning_rate", "learning_rate_schedule"),
            *("weight_decay", "average_decay", "seed", "deterministic"),
        ),
    ),
    Group(
        "stages",
        "Where the network is cut, and which ranks hold its parts.",
        (
            *("stages", "replicas", "cuts", "cut_between", "placement", "memory_limits_mb"),
            *("weights_layout", "slow_rank"),
        ),
    ),
    Group(
        "decoupler",
        "Where a stage's gradient comes from, and how batches follow each other.",
        ("decoupler", "microbatches"),
    ),
    Group(
        "links",
        "How activations and gradients cross between stages.",
        ("activation_encodings", "gradient_encodings", "credits", "mpi_progress"),
    ),
    Group(
        "exchange",
        "How gradients cross between ranks that hold the same parameters.",
        ("compression", "exchange", "ternary"),
    ),
    Group(
        "checkpoints",
        "What a run continues from after it was stopped or killed.",
        ("checkpoint_dir", "checkpoint_every", "keep_checkpoints", "resume"),
    ),
    Group(
        "elastic jobs",
        "What a job does when workers come and go.",
        ("elastic", "commit_every"),
    ),
    Group(
        "output",
        "What a run writes.",
        ("summary", "logdir", "log_every", "histogram_every", "histogram_layers", "profile"),
    ),
    Group(
        "machine",
        "What a run takes of time and memory.",
        ("timeout_s", "start_timeout_s", "keep_freed_memory", "release_above_mb"),
    ),
)


def show_help_if_asked(arguments: Sequence[str], config: JobConfig, description: str) -> None:
    """Write the text of `--help` and end the program if a flag asks for it.

    Args:
        arguments: The flags, without the program's name.
        config: With the defaults that are shown.
        description: Of the program.

    Raises:
        SystemExit: With code 0, if it was asked for.
    """
    if not {"-h", "--help"}.isdisjoint(arguments):
        report(help_text(config, f"{job_name()}.py", description))
        raise SystemExit(0)


def help_text(config: JobConfig, program: str, description: str) -> str:
    """Return the text of `--help`, as wide as the terminal.

    Args:
        config: With the defaults that are shown.
        program: The name of the program.
        description: What it does, in lines that stay as they are.
    """
    parser = argparse.ArgumentParser(
        program,
        usage=f"{program} [--SETTING VALUE ...]",
        description=description,
        formatter_class=_Formatter,
        add_help=False,
    )
    for group in GROUPS:
        present = [each.name for each in fields(config) if each.name in group.names]
        if present:
            section = parser.add_argument_group(group.title, group.about)
            for name in sorted(present, key=group.names.index):
                _add(section, config, name, "")
    section = parser.add_argument_group("help")
    section.add_argument("--help", "-h", action="help", help="Show this text.")
    return parser.format_help()


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Start the texts of all settings in one column, and end them before lines get too long."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)
        self._width = min(self._width, 118)


def _add(section: Any, owner: Any, name: str, prefix: str) -> None:
    """Add a setting to a group; for one that has settings itself, add those."""
    value, flag = getattr(owner, name), prefix + name.replace("_", "-")
    about = " ".join(_field_docs(type(owner)).get(name, "").replace("`", "").split())
    if is_dataclass(value):
        if hasattr(value, "name"):
            _add_flag(section, flag, "NAME", about, value.name)
        for each in fields(value):
            if not each.metadata.get("script_only"):
                _add(section, value, each.name, f"{flag}.")
    else:
        _add_flag(section, flag, _values(get_type_hints(type(owner))[name]), about, value)


def _add_flag(section: Any, flag: str, values: str, about: str, default: object) -> None:
    """Add a line to a group; ``values`` is empty for a setting that is on or off."""
    text = f"{about} (default: {_shown(default)})".replace("%", "%%")
    if values:
        section.add_argument(f"--{flag}", metavar=values, help=text)
    else:
        owner, dot, name = flag.rpartition(".")
        off = f"--{owner}{dot}no-{name}"
        section.add_argument(f"--{flag}", off, action="store_true", help=text)


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return " ".join(map(str, default)) or "none"
    return "none" if default is None else str(default)


def _values(expected: Any) -> str:
    """Return what stands for the values of a type; empty for one that is on or off."""
    origin, arguments = get_origin(expected), get_args(expected)
    if expected is bool:
        return ""
    if origin is Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if origin is tuple:
        return f"{_values(arguments[0])} ..."
    if arguments:  # a type or None
        return _values(arguments[0])
    return str(expected.__name__).upper()


def _field_docs(owner: type) -> dict[str, str]:
    """Return the text under each field of a dataclass, as it stands in the source."""
    found: dict[str, str] = {}
    for each in reversed(owner.__mro__):
        if not is_dataclass(each):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        for field, text in pairwise(body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(doc)):
                    found[name] = str(doc)
    return found
