"""A real Slurm of some nodes on this machine's loopback, while a test needs it.

    python tests/slurm/cluster.py 2    # start it and say how to use it, until Enter

Needs root and slurmctld, slurmd, munged (Debian: tools/install_slurm.sh). Everything is
kept in a temporary folder, with a key and ports of its own, and nothing listens on
other than loopback. All nodes are this machine, so their jobs share its cores.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "sinfo", "srun")
START_LIMIT_S = 60
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # where Debian keeps the daemons

_CONFIGURATION = """\
ClusterName=knet
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdParameters=config_overrides
MpiDefault=none
KillWait=5
MinJobAge=3600
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=100000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
_NODE = (
    "NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
    "CPUs={cpus} RealMemory=4000 State=UNKNOWN\n"
)


def missing() -> str | None:
    """Return why no cluster can be started here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)}): tools/install_slurm.sh"
    return None if os.geteuid() == 0 else "starting Slurm's daemons needs root"


@contextmanager
def cluster(num_nodes: int = 2, cpus: int = 4) -> Iterator[dict[str, str]]:
    """Run a cluster; yields the environment in which `sbatch` and others find it.

    Args:
        num_nodes: Nodes n1, n2, ….
        cpus: Of each node, as Slurm is told; this machine may have fewer.

    Raises:
        RuntimeError: If it does not come up in time.
    """
    folder = Path(tempfile.mkdtemp(prefix="knet-slurm-"))
    environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf")}
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        with (folder / f"{command[0]}.out").open("ab") as log:
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    try:
        _configure(folder, num_nodes, cpus)
        start(*_munged(folder))
        _wait(lambda: (folder / "munge.socket").exists(), folder)
        start("slurmctld", "-D", "-i")
        for number in range(1, num_nodes + 1):
            start("slurmd", "-D", "-N", f"n{number}")
        _wait(lambda: _idle_nodes(environment) == num_nodes, folder)
        yield environment
    finally:
        _cancel_all(environment)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in processes_of(environment):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # slurmd is gone, and they did not obey it
        shutil.rmtree(folder, ignore_errors=True)


def processes_of(environment: dict[str, str]) -> list[int]:
    """Return the processes of a cluster: its jobs inherit where its settings are."""
    mark = f"SLURM_CONF={environment['SLURM_CONF']}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # it has just ended
    return [pid for pid in found if pid != os.getpid()]


def _configure(folder: Path, num_nodes: int, cpus: int) -> None:
    host = socket.gethostname()
    ports = _free_ports(num_nodes + 1)
    text = _CONFIGURATION.format(host=host, folder=folder, controller_port=ports[0])
    for number, port in enumerate(ports[1:], start=1):
        text += _NODE.format(number=number, host=host, port=port, cpus=cpus)
        (folder / f"spool-n{number}").mkdir()
    (folder / "slurm.conf").write_text(text)
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    # munged wants to be reached by all users, and its folder changed by none of them.
    folder.chmod(0o755)


def _munged(folder: Path) -> list[str]:
    files = [
        f"--{kind}-file={folder}/munge.{ending}"
        for kind, ending in (("key", "key"), ("pid", "pid"), ("log", "log"), ("seed", "seed"))
    ]
    return ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files]


def _free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _idle_nodes(environment: dict[str, str]) -> int:
    command = ["sinfo", "--noheader", "--states=idle", "--format=%D"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    return int(done.stdout or 0) if done.returncode == 0 else 0


def _cancel_all(environment: dict[str, str]) -> None:
    """End what still runs, so that no process of a job outlives the cluster."""

    def slurm(*command: str) -> str:
        try:
            return subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=30, check=False
            ).stdout
        except subprocess.TimeoutExpired:
            return ""

    jobs = slurm("squeue", "--noheader", "--format=%A").split()
    if jobs:
        slurm("scancel", *jobs)
    deadline = time.monotonic() + 20
    while slurm("squeue", "--noheader").strip() and time.monotonic() < deadline:
        time.sleep(0.5)


def _wait(ready, folder: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while not ready():
        if time.monotonic() > deadline:
            logs = [p.read_text(errors="replace") for p in folder.glob("*.log")]
            raise RuntimeError("Slurm did not come up:\n" + "\n".join(logs)[-4000:])
        time.sleep(0.2)


if __name__ == "__main__":
    if missing():
        sys.exit(f"cluster: {missing()}")
    with cluster(int(sys.argv[1]) if len(sys.argv) > 1 else 2) as found:
        sys.stdout.write(f"export SLURM_CONF={found['SLURM_CONF']}\n")
        sys.stdout.flush()
        sys.stdin.readline()
