"""``python -m knet_hvd elastic``: launch a job that outlives its workers."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from knet_hvd.errors import KnetError
from knet_hvd.training.elastic.launcher.driver import ElasticConfig, launch
from knet_hvd.training.elastic.launcher.interfaces import choose_interface, local_addresses

EXAMPLE = (
    "python -m knet_hvd elastic --min-np 2 --host-discovery-script ./hosts.sh -- "
    "python jobs/train_data_parallel.py --elastic"
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m knet_hvd elastic",
        description="Launch a job that continues without workers that die.",
        epilog=f"Example: {EXAMPLE}",
    )
    add = parser.add_argument
    add("--min-np", type=int, default=1, help="with fewer workers, wait for hosts (1)")
    add("--max-np", type=int, help="never more workers (those of the start)")
    add("-np", type=int, help="workers to wait for in the beginning (--min-np)")
    text = "a program that writes host:slots on a line each, called every second"
    add("--host-discovery-script", type=Path, required=True, help=text)
    text = "name or IPv4 address of the network interface to use (127.0.0.1)"
    add("--interface", default="127.0.0.1", help=text)
    text = "use the interface even if the internet can reach it"
    add("--allow-public-address", action="store_true", help=text)
    add("--timeout", type=int, default=600, help="seconds to wait for hosts (600)")
    text = "seconds after which a host that failed may come back (never)"
    add("--cooldown", type=int, nargs=2, metavar=("MIN", "MAX"), help=text)
    add("--max-resets", type=int, help="end after so many changes of size")
    text = "how to reach other hosts (ssh -o BatchMode=yes)"
    add("--ssh", default="ssh -o BatchMode=yes", help=text)
    add("worker", nargs="+", help="command line of each worker, after --")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Launch a job; return the exit code.

    Args:
        arguments: The command line, without the program's name.
    """
    flags = _parser().parse_args(arguments)
    start = flags.np or flags.min_np
    try:
        interface = choose_interface(flags.interface, flags.allow_public_address, local_addresses())
        config = ElasticConfig(
            interface=interface,
            script=flags.host_discovery_script,
            min_workers=flags.min_np,
            max_workers=flags.max_np or start,
            start_workers=start,
            timeout_s=flags.timeout,
            cooldown_s=tuple(flags.cooldown) if flags.cooldown else None,
            max_resets=flags.max_resets,
            ssh=tuple(shlex.split(flags.ssh)),
        )
        launch(config, flags.worker)
    except (KnetError, ValueError) as error:
        sys.stderr.write(f"elastic: {error}\n")
        return 1
    return 0
