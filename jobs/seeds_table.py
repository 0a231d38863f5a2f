"""Make one table of the summaries that runs with several seeds have left.

    python jobs/seeds_table.py runs/seeds-17 --table runs/seeds-17/table.md

Prints the table; --table writes it as well.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from knet_hvd.metrics.seeds import seeds_table


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedsTableConfig:
    """Make one table of the summaries of several seeds."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of the summaries, seed-0.json and so on."""

    table: Path | None = None
    """File for the table, in Markdown."""


def fail(message: str) -> int:
    """Print why there is no table; return the exit code."""
    print(f"seeds_table: {message}", file=sys.stderr)
    return 1


def main() -> int:
    """Make the table; return the exit code."""
    config = tyro.cli(SeedsTableConfig, description=__doc__)
    files = sorted(config.folder.glob("seed-*.json"))
    try:
        summaries = [json.loads(file.read_text()) for file in files]
        table = seeds_table(summaries)
        if config.table is not None:
            config.table.write_text(table + "\n")
    except KeyError as error:
        return fail(f"a summary in {config.folder} has no {error}: was it a job's?")
    except (OSError, ValueError) as error:
        return fail(f"{config.folder}: {error}")
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
