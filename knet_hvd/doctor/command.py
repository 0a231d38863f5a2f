"""Run the doctor on all ranks, and write the report once."""

import json
import platform
import sys
from dataclasses import asdict

import knet_hvd
from knet_hvd.comm.throttle import parse_slow_rank
from knet_hvd.doctor.checks import check_rank, check_versions
from knet_hvd.doctor.facts import Facts
from knet_hvd.doctor.findings import Finding, exit_code, merge
from knet_hvd.doctor.machine import measure_facts
from knet_hvd.doctor.report import Report
from knet_hvd.doctor.software import launched_rank
from knet_hvd.doctor.speed_checks import check_links, check_speeds
from knet_hvd.errors import KnetError

_TIMEOUT_S = 60.0


def run_doctor(*, as_json: bool = False, slow_rank: str | None = None) -> int:
    """Check this machine, or all ranks and what lies between them; write the report.

    Args:
        as_json: Write JSON in place of text.
        slow_rank: Slow a rank down, for tests, such as ``1:8.0``.

    Returns:
        The exit code: 1 if something would stop a job. It is the same on all ranks.
    """
    try:
        parse_slow_rank(slow_rank)
    except ValueError as error:
        sys.stderr.write(f"doctor: {error}\n")
        return 1
    facts = measure_facts()
    if facts.mpi.num_ranks == 1:
        report = Report(findings=check_rank(facts, 1), hosts=[facts.machine.host])
        writes = launched_rank() == 0
    else:
        report, writes = _examine_ranks(facts, slow_rank)
    if writes:
        text = json.dumps(report.json_object(), indent=2) if as_json else report.text()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    return exit_code(report.findings)


def _examine_ranks(facts: Facts, slow_rank: str | None) -> tuple[Report, bool]:
    """Return the report, the same on all ranks, and whether this one writes it."""
    # Where there is no MPI there are no ranks, and these could not be imported.
    from knet_hvd.comm import World, abort
    from knet_hvd.comm.throttle import throttle_of
    from knet_hvd.doctor.ranks import measure_ranks

    try:
        world = World(_TIMEOUT_S)
        hosts = world.gather_text(facts.machine.host, "the hosts of all ranks")
        own = check_rank(facts, hosts.count(facts.machine.host))
        text = json.dumps([asdict(finding) for finding in own])
        findings = merge(
            [
                [Finding(**finding) for finding in json.loads(other)]
                for other in world.gather_text(text, "what all ranks have found")
            ]
        )
        versions = world.gather_text(json.dumps(_versions(facts)), "the versions")
        findings.append(check_versions([json.loads(other) for other in versions]))
        compute_s, links = measure_ranks(world, throttle_of(world, slow_rank))
        rates = {pair: v.bytes_per_s for pair, v in links.items() if pair[0] < pair[1]}
        findings += [check_speeds(compute_s), check_links(rates, hosts)]
        writes = world.rank == 0
        world.close()
    except (KnetError, ValueError) as error:
        sys.stderr.write(f"doctor: {error}\n")
        abort()
    report = Report(findings=findings, hosts=hosts, compute_s=compute_s, links=links)
    return report, writes


def _versions(facts: Facts) -> dict[str, str]:
    return {
        "knet_hvd": knet_hvd.__version__,
        "python": platform.python_version(),
        "torch": facts.torch.version,
        "horovod": facts.horovod.version or "not usable",
        "MPI": facts.mpi.library,
    }
