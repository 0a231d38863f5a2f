"""One table of runs that differ in their seed."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def seeds_table(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Return accuracy, speed and bytes of each seed, and their mean and deviation.

    Args:
        summaries: What jobs write with ``--summary``, one for each seed.

    Returns:
        A table in Markdown, in the order of the seeds. The deviation is that of a
        sample (divided by n - 1), and left out for a single seed.

    Raises:
        ValueError: If there is no summary, or a seed is there twice.
        KeyError: If a summary lacks a value.
    """
    if not summaries:
        raise ValueError("expected the summary of at least one seed, got none")
    rows = sorted((_row(summary) for summary in summaries), key=lambda row: row[0])
    seeds = [row[0] for row in rows]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"expected different seeds, got {seeds}")
    lines = ["| seed | test accuracy | samples/s | kB a step |", "|-|-|-|-|"]
    lines += [_line(str(row[0]), row[1:]) for row in rows]
    columns = list(zip(*(row[1:] for row in rows), strict=True))
    mean = [statistics.mean(column) for column in columns]
    lines.append(_line(f"mean of {len(rows)}", mean))
    if len(rows) > 1:
        deviation = [statistics.stdev(column) for column in columns]
        lines.append(_line("deviation", deviation))
    return "\n".join(lines)


def _row(summary: Mapping[str, Any]) -> tuple[int, float, float, float]:
    num_bytes = summary.get("wire_bytes_per_step", summary.get("bytes_per_step"))
    if num_bytes is None:
        raise KeyError("wire_bytes_per_step")
    return (
        summary["config"]["seed"],
        summary["test_accuracy"],
        summary["samples_per_second"],
        num_bytes / 1e3,
    )


def _line(name: str, values: Sequence[float]) -> str:
    accuracy, speed, kilobytes = values
    return f"| {name} | {accuracy:.4f} | {speed:.0f} | {kilobytes:.1f} |"
