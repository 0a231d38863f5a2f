"""Which hosts an elastic job may use, asked every second."""

import os
import re
import subprocess
from pathlib import Path

from horovod.runner.elastic.discovery import HostDiscovery

from knet_hvd.deadline import run_within

_LABEL = "[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
"""DNS has no longer ones; Python refuses to look them up."""
_LINE = re.compile(rf"((?=.{{1,253}}(?::|$)){_LABEL}(?:\.{_LABEL})*)(?::([0-9]{{1,4}}))?")
_LIMIT_S = 20.0


class ScriptDiscovery(HostDiscovery):  # type: ignore[misc]
    """Run a program that writes ``host`` or ``host:slots`` on each line.

    Horovod's own runs the script in a shell, and takes any text for a host's name.
    """

    def __init__(self, script: Path, default_slots: int = 1) -> None:
        """Run nothing yet.

        Args:
            script: An executable file.
            default_slots: Of a host without a number.

        Raises:
            ValueError: If it cannot be executed.
        """
        if not os.access(script, os.X_OK) or not script.is_file():
            raise ValueError(f"host discovery script {script}: expected an executable file")
        self._script = script.resolve()
        self._default_slots = default_slots

    def find_available_hosts_and_slots(self) -> dict[str, int]:
        """Return the number of workers that each host may have now.

        Raises:
            RuntimeError: If the script fails, or writes anything else. While a job
                runs, Horovod's driver logs this and asks again.
        """
        try:
            done = run_within([str(self._script)], _LIMIT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"host discovery script: {error}") from error
        if done.returncode != 0:
            raise RuntimeError(
                f"host discovery script {self._script}: exit code {done.returncode}: "
                f"{done.stderr.strip()}"
            )
        return parse_hosts(done.stdout, self._default_slots)


def parse_hosts(text: str, default_slots: int = 1) -> dict[str, int]:
    """Return slots by host.

    Args:
        text: A line each; empty lines and those that begin with # do not count.
        default_slots: Of a host without a number.

    Raises:
        RuntimeError: If a line is not ``host`` or ``host:slots``.
    """
    hosts = {}
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise RuntimeError(
                f"host discovery script: expected host or host:slots, got {line[:80]!r}"
            )
        hosts[match[1]] = int(match[2] or default_slots)
    return hosts
