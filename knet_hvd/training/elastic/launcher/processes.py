"""Start a worker on this machine or another, and end it when the driver says so."""

import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from threading import Event
from typing import IO

_POLL_S = 0.1
_TERMINATION_S = 5.0
_EXPORTED = ("HOROVOD_", "KNET_", "NCCL_", "CUDA_", "OMP_", "GLOO_", "PYTHON")
_EXPORTED_NAMES = ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
SECRET = "HOROVOD_GLOO_RENDEZVOUS_ADDR"
"""The variable that holds the server's address with its token."""
_READ_SECRET = f'IFS= read -r {SECRET} && export {SECRET} && exec "$@" </dev/null'


def remote_command(
    ssh: Sequence[str],
    host: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
) -> list[str]:
    """Return the command that runs another on a host, with every word quoted.

    Only variables that concern training are passed on. A command line is no secret, so the
    address with the token is not in it: the first line of the input is.

    Args:
        ssh: The program that reaches it, and its flags.
        host: Checked by ``parse_hosts``.
        command: What to run.
        environment: Of the worker.
        folder: To run it in.
    """
    passed = [
        f"{name}={value}"
        for name, value in environment.items()
        if (name.startswith(_EXPORTED) or name in _EXPORTED_NAMES) and name != SECRET
    ]
    words = ["sh", "-c", _READ_SECRET, "sh", "env", f"--chdir={folder}", *passed, *command]
    return [*ssh, host, shlex.join(words)]


def run_worker(
    command: Sequence[str],
    environment: Mapping[str, str],
    events: Sequence[Event],
    secret: str = "",
) -> tuple[int, float]:
    """Run a process to its end.

    Args:
        command: Its words; no shell sees them.
        environment: All of its variables.
        events: Any of them ends it.
        secret: The only line of its input; without it, it has no input.

    Returns:
        Its exit code, as a shell would have it, and when it ended.
    """
    try:
        source = subprocess.PIPE if secret else subprocess.DEVNULL
        process = subprocess.Popen(command, env=dict(environment), stdin=source)
        if process.stdin is not None:
            _send(process.stdin, secret)
    except OSError:
        return 127, time.time()
    code = process.poll()
    while code is None:
        if any(event.is_set() for event in events):
            code = _terminate(process)
            break
        time.sleep(_POLL_S)
        code = process.poll()
    return (code if code >= 0 else 128 - code), time.time()


def _send(stream: IO[bytes], line: str) -> None:
    try:
        stream.write(f"{line}\n".encode())
        stream.close()
    except BrokenPipeError:
        pass  # it has ended already; its exit code says why


def _terminate(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    try:
        return process.wait(_TERMINATION_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def worker_environment(variables: Mapping[str, object]) -> dict[str, str]:
    """Return this process's environment with a worker's variables in it."""
    own = {name: str(value) for name, value in variables.items()}
    return {**os.environ, "PYTHONUNBUFFERED": "1", **own}
