"""What a check has found."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "problem")


@dataclass(frozen=True, slots=True)
class Finding:
    """Say what one check has found.

    Attributes:
        check: Its name.
        level: ``"problem"`` would stop a job, ``"warning"`` slows it or may stop it.
        found: What was found, in one line.
        fix: What to do about it, in one line; empty if all is well.
    """

    check: str
    level: Level
    found: str
    fix: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 1 if something would stop a job, else 0."""
    return int(any(finding.level == "problem" for finding in findings))


def merge(findings_of_ranks: list[list[Finding]]) -> list[Finding]:
    """Return what ranks have found, once where all have found the same.

    Args:
        findings_of_ranks: By rank; all have run the same checks in the same order.

    Returns:
        In the order of the checks, then of the ranks, which are named where they
        differ.
    """
    merged = []
    for of_check in zip(*findings_of_ranks, strict=True):
        ranks: dict[Finding, list[int]] = {}
        for rank, finding in enumerate(of_check):
            ranks.setdefault(finding, []).append(rank)
        for finding, who in ranks.items():
            found = finding.found
            if len(ranks) > 1:
                found = f"{'rank' if len(who) == 1 else 'ranks'} {_listed(who)}: {found}"
            merged.append(Finding(finding.check, finding.level, found, finding.fix))
    return merged


def _listed(ranks: list[int]) -> str:
    return ", ".join(str(rank) for rank in ranks)
