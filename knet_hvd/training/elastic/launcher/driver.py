"""Start and watch the workers of an elastic job."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

from horovod.runner.common.util.timeout import TimeoutException
from horovod.runner.elastic.driver import ElasticDriver
from horovod.runner.elastic.rendezvous import create_rendezvous_handler
from horovod.runner.gloo_run import (
    create_run_env_vars,
    create_slot_env_vars,
    register_shutdown_event,
)

from knet_hvd.deadline import LONGEST_LOOK_S, Deadline
from knet_hvd.errors import KnetError
from knet_hvd.training.elastic import LAUNCHED_BY
from knet_hvd.training.elastic.launcher.discovery import ScriptDiscovery
from knet_hvd.training.elastic.launcher.interfaces import Interface, is_local, local_addresses
from knet_hvd.training.elastic.launcher.processes import (
    remote_command,
    run_worker,
    worker_environment,
)
from knet_hvd.training.elastic.launcher.rendezvous import PORT, BoundRendezvous

_GLOO_TIMEOUT = "HOROVOD_GLOO_TIMEOUT_SECONDS"
_GLOO_TIMEOUT_S = "20"
"""Less than Horovod's 30, after which ``check_agreement`` would blame the script."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ElasticConfig:
    """How an elastic job is launched.

    Attributes:
        interface: Of ``choose_interface``.
        script: Writes the hosts; see ``ScriptDiscovery``.
        min_workers: With fewer the job waits, and ends after ``timeout_s``.
        max_workers: Never more.
        start_workers: How many to wait for in the beginning.
        timeout_s: How long to wait for hosts.
        cooldown_s: A host on which a worker has failed may come back after a time
            between these; without it, never.
        max_resets: After so many the job ends; None for no limit.
        ssh: Reaches other hosts.

    Raises:
        ValueError: If a number is out of range.
    """

    interface: Interface
    script: Path
    min_workers: int
    max_workers: int
    start_workers: int
    timeout_s: int = 600
    cooldown_s: tuple[int, int] | None = None
    max_resets: int | None = None
    ssh: tuple[str, ...] = field(default=("ssh", "-o", "BatchMode=yes"))

    def __post_init__(self) -> None:
        if not 1 <= self.min_workers <= self.start_workers <= self.max_workers:
            raise ValueError(
                "expected 1 <= --min-np <= -np <= --max-np, got --min-np "
                f"{self.min_workers}, -np {self.start_workers}, --max-np "
                f"{self.max_workers}"
            )


class _Driver(ElasticDriver):  # type: ignore[misc]
    """Horovod's driver, which announces changes where it would call a worker."""

    limit_s = 600.0

    def wait_for_available_slots(self, min_num_proc: int, min_hosts: int = 1) -> Any:
        # Horovod's own limit would count time in which the launcher was suspended.
        deadline = Deadline(self.limit_s)
        while True:
            try:
                return super().wait_for_available_slots(min_num_proc, min_hosts)
            except TimeoutException as error:
                if deadline.has_passed():
                    raise KnetError(
                        f"for {self.limit_s:g} s there were fewer than {min_num_proc} workers "
                        "and no hosts for more: see --host-discovery-script and --timeout"
                    ) from error

    def resume(self) -> None:
        try:
            super().resume()
        except RuntimeError as error:  # raised, it would be shown as a traceback
            self.stop(error_message=str(error))

    def stop_after(self, event: Event) -> None:
        """Wait for an event, and then for no hosts any more."""
        event.wait()
        self._shutdown.set()
        with self._wait_hosts_cond:
            self._wait_hosts_cond.notify_all()

    def get_worker_client(self, slot_info: Any) -> "_Driver":
        return self

    def notify_hosts_updated(self, timestamp: int, update_res: Any) -> None:
        self._rendezvous.announce()


def launch(config: ElasticConfig, command: Sequence[str]) -> None:
    """Run a job's workers, and continue without those that fail, until they are done.

    Args:
        config: How.
        command: Of each worker.

    Raises:
        KnetError: If the job failed.
    """
    discovery = ScriptDiscovery(config.script)
    try:
        discovery.find_available_hosts_and_slots()  # later failures are only logged
    except RuntimeError as error:
        raise KnetError(str(error)) from error
    rendezvous = BoundRendezvous(config.interface.address)
    driver = _Driver(
        rendezvous,
        discovery,
        config.min_workers,
        config.max_workers,
        timeout=LONGEST_LOOK_S / 2,
        reset_limit=config.max_resets,
        cooldown_range=config.cooldown_s,
    )
    driver.limit_s = config.timeout_s
    rendezvous.start(create_rendezvous_handler(driver))
    try:
        _run(driver, rendezvous, config, command)
    except KnetError:
        raise
    except RuntimeError as error:
        raise KnetError(" ".join(str(error).split())) from error
    finally:
        driver.stop()


def _run(
    driver: _Driver, rendezvous: BoundRendezvous, config: ElasticConfig, command: Sequence[str]
) -> None:
    stopped = register_shutdown_event()
    Thread(target=driver.stop_after, args=(stopped,), daemon=True).start()
    driver.wait_for_available_slots(config.start_workers)
    interface = config.interface
    variables = create_run_env_vars(rendezvous.secret_address, [interface.name], PORT, elastic=True)
    variables[LAUNCHED_BY] = "1"
    variables[_GLOO_TIMEOUT] = os.environ.get(_GLOO_TIMEOUT, _GLOO_TIMEOUT_S)

    def create_worker(slot: Any, events: Sequence[Event]) -> tuple[int, float]:
        environment = worker_environment({**variables, **create_slot_env_vars(slot)})
        words = list(command)
        secret = ""
        if not is_local(slot.hostname, local_addresses()):
            folder = str(Path.cwd())
            words = remote_command(config.ssh, slot.hostname, words, environment, folder)
            secret = rendezvous.secret_address
        return run_worker(words, environment, [stopped, *events], secret)

    driver.start(config.start_workers, create_worker)
    _check(driver.get_results(), stopped)


def _check(results: Any, stopped: Event) -> None:
    """Raise unless the last workers have all succeeded."""
    if stopped.is_set():
        raise KnetError("stopped by a signal")
    if results.error_message is not None:
        raise KnetError(results.error_message)
    codes = {name: code for name, (code, _) in results.worker_results.items()}
    failed = [f"{name}: exit code {code}" for name, code in codes.items() if code]
    if failed or not codes:
        raise KnetError(
            "the job has failed; what its workers printed tells why "
            f"({', '.join(failed) or 'none of them came to an end'})"
        )
