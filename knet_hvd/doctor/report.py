"""The doctor's report, for people and for machines."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from knet_hvd import ops
from knet_hvd.doctor.findings import Finding, exit_code
from knet_hvd.performance import allreduce_bytes, alltoall_bytes

if TYPE_CHECKING:  # importing it starts MPI, which may be what is broken
    from knet_hvd.comm import LinkSpeed

Links: TypeAlias = "Mapping[tuple[int, int], LinkSpeed]"
_MARKS = {"ok": "OK", "warning": "warning", "problem": "PROBLEM"}
_EXAMPLE_VALUES = 10_000_000
_FLOAT_BYTES = 4
_CODE_BITS = ops.code_bits("trit5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Hold all that was found.

    Attributes:
        findings: Of all checks.
        hosts: The machine of each rank.
        compute_s: Seconds of the same computation on each rank; none for one rank.
        links: The speed by source and target; none for one rank.
    """

    findings: Sequence[Finding]
    hosts: Sequence[str]
    compute_s: Sequence[float] = ()
    links: Links = field(default_factory=dict)

    def text(self) -> str:
        """Return it as lines for people."""
        parts = [*(_finding_text(finding) for finding in self.findings)]
        if self.links:
            parts += ["", self._rank_table(), "", self._link_table(), self._example()]
        return "\n".join([*parts, "", self._conclusion()])

    def json_object(self) -> dict[str, Any]:
        """Return it as what JSON can express; times in seconds."""
        return {
            "ok": exit_code(self.findings) == 0,
            "checks": [asdict(finding) for finding in self.findings],
            "hosts": list(self.hosts),
            "compute_s": list(self.compute_s),
            "links": [
                {"source": source, "target": target, **asdict(link)}
                for (source, target), link in self.links.items()
                if source < target
            ],
        }

    def _rank_table(self) -> str:
        fastest = min(self.compute_s)
        rows = [
            f"{rank:>4}  {seconds / fastest:>7.2f}  {host}"
            for rank, (host, seconds) in enumerate(zip(self.hosts, self.compute_s, strict=True))
        ]
        return "\n".join(["rank  compute  host (compute: 1 is the fastest rank)", *rows])

    def _link_table(self) -> str:
        rows = [
            f"{f'{source}-{target}':>9}  {1e6 * link.latency_s:>10.1f}  "
            f"{link.bytes_per_s / 1e6:>8.0f}"
            for (source, target), link in sorted(self.links.items())
            if source < target
        ]
        return "\n".join(["    ranks  latency us      MB/s", *rows])

    def _example(self) -> str:
        """Say what the slowest link means for a step; Horovod and the codec not."""
        slowest = min(self.links.values(), key=_rate)
        num_ranks = len(self.hosts)
        full = allreduce_bytes(_FLOAT_BYTES * _EXAMPLE_VALUES, num_ranks)
        codes = alltoall_bytes(2 * _CODE_BITS / 8 * _EXAMPLE_VALUES, num_ranks)
        return (
            f"10 M gradients over the slowest link take at least "
            f"{1e3 * slowest.seconds(int(full)):.1f} ms a step as fp32, "
            f"{1e3 * slowest.seconds(int(codes)):.1f} ms as ternary codes both ways."
        )

    def _conclusion(self) -> str:
        levels = [finding.level for finding in self.findings]
        problems, warnings = levels.count("problem"), levels.count("warning")
        if problems:
            return f"{problems} would stop a job, {warnings} to look at."
        return f"Nothing would stop a job; {warnings} to look at."


def _rate(link: "LinkSpeed") -> float:
    return link.bytes_per_s


def _finding_text(finding: Finding) -> str:
    text = f"{_MARKS[finding.level]:<8} {finding.check:<14} {finding.found}"
    return f"{text}\n{'':<8} {'':<14} to fix: {finding.fix}" if finding.fix else text
