"""The launcher of elastic jobs: where it listens, what it takes, what it starts."""

import base64
import http.client
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from horovod.runner.common.util.hosts import INVALID_SLOT_INFO
from horovod.runner.elastic.rendezvous import create_rendezvous_handler

from knet_hvd.training.elastic.launcher.command import main
from knet_hvd.training.elastic.launcher.discovery import ScriptDiscovery, parse_hosts
from knet_hvd.training.elastic.launcher.interfaces import (
    Interface,
    choose_interface,
    is_local,
    local_addresses,
)
from knet_hvd.training.elastic.launcher.processes import remote_command, run_worker
from knet_hvd.training.elastic.launcher.rendezvous import BoundRendezvous
from knet_hvd.training.elastic.worker.host_watch import HostWatch
from tests.rendezvous import rendezvous

__all__ = ["rendezvous"]

KNOWN = {
    "lo": ["127.0.0.1", "::1"],
    "eth0": ["10.0.0.4", "fe80::1"],
    "eth1": ["8.8.4.4"],
    "eth2": ["192.168.3.1", "2a00:1450:4001::5"],
    "ib0": ["fe80::2"],
}


@pytest.mark.parametrize(
    ("wanted", "name", "address"),
    [
        ("lo", "lo", "127.0.0.1"),
        ("127.0.0.1", "lo", "127.0.0.1"),
        ("eth0", "eth0", "10.0.0.4"),
        ("10.0.0.4", "eth0", "10.0.0.4"),
    ],
)
def test_an_interface_is_chosen_by_name_or_address(wanted: str, name: str, address: str) -> None:
    chosen = choose_interface(wanted, allow_public=False, known=KNOWN)
    assert chosen == Interface(name, address)


@pytest.mark.parametrize("wanted", ["eth1", "8.8.4.4", "eth2", "192.168.3.1"])
def test_a_public_address_needs_to_be_meant(wanted: str) -> None:
    """eth2 has one beside a private one, and gloo binds by the interface's name."""
    with pytest.raises(ValueError, match=r"public address .*--allow-public-address"):
        choose_interface(wanted, allow_public=False, known=KNOWN)
    chosen = choose_interface(wanted, allow_public=True, known=KNOWN)
    assert wanted in (chosen.name, chosen.address)


@pytest.mark.parametrize("wanted", ["0.0.0.0", "eth9", "10.0.0.5", "", "::1", "ib0"])
def test_what_is_no_interface_is_refused(wanted: str) -> None:
    with pytest.raises(ValueError, match="IPv4"):
        choose_interface(wanted, allow_public=True, known=KNOWN)


def test_the_command_refuses_a_public_address_and_unordered_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module = "knet_hvd.training.elastic.launcher.command.local_addresses"
    monkeypatch.setattr(module, lambda: KNOWN)
    script = ["--host-discovery-script", str(tmp_path / "none")]
    assert main([*script, "--interface", "eth1", "--", "true"]) == 1
    assert "public address 8.8.4.4" in capsys.readouterr().err
    assert main([*script, "--min-np", "3", "-np", "2", "--", "true"]) == 1
    assert "--min-np 3, -np 2" in capsys.readouterr().err
    assert main([*script, "--", "true"]) == 1
    assert "expected an executable file" in capsys.readouterr().err


def test_every_loopback_address_is_this_machine() -> None:
    known = local_addresses()
    assert is_local("127.0.0.3", known)
    assert is_local("localhost", known)
    assert not is_local("192.0.2.1", known)


LONG_NAMES = ("a" * 64, "a" * 5000 + ":1", ".".join(["a" * 63] * 5), "a..b", "a.")


def test_hosts_are_read_and_nothing_else_is() -> None:
    assert parse_hosts("a:2\n\n# no host\n10.0.0.1\n", 4) == {"a": 2, "10.0.0.1": 4}
    assert parse_hosts("n-1.example_x.org:3") == {"n-1.example_x.org": 3}
    assert parse_hosts("a" * 63) == {"a" * 63: 1}
    for text in ("-oProxyCommand=x:1", "a b", "a;true:1", "$(true)", "a:two", "a:-1", *LONG_NAMES):
        with pytest.raises(RuntimeError, match="expected host or host:slots"):
            parse_hosts(text)


def test_a_script_that_fails_is_named(tmp_path: Path) -> None:
    script = tmp_path / "hosts.sh"
    with pytest.raises(ValueError, match="expected an executable file"):
        ScriptDiscovery(script)
    script.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(RuntimeError, match="exit code 3: broken"):
        ScriptDiscovery(script).find_available_hosts_and_slots()


def test_a_remote_shell_sees_the_words_that_were_meant(tmp_path: Path) -> None:
    words = ["python", "a b", "$(touch x)", "; touch y", "'", '"']
    environment = {"HOROVOD_RANK": "1 2", "SECRET_TOKEN": "s", "PATH": "/usr/bin:/bin"}
    environment["HOROVOD_GLOO_RENDEZVOUS_ADDR"] = "10.0.0.1:4/tok en"
    line = remote_command(["ssh", "-q"], "host", words, environment, str(tmp_path))
    assert line[:3] == ["ssh", "-q", "host"]
    assert "SECRET_TOKEN" not in line[3]
    assert "tok en" not in line[3]
    show = (
        "import os, sys; print(os.environ['HOROVOD_RANK'], sys.argv[1:], os.getcwd(), "
        "os.environ['HOROVOD_GLOO_RENDEZVOUS_ADDR'], repr(sys.stdin.read()), "
        "file=open('out', 'w'))"
    )
    words = [sys.executable, "-c", show, *words]
    remote = remote_command(["ssh"], "host", words, environment, str(tmp_path))[2]
    code, _ = run_worker(["sh", "-c", remote], os.environ, [], "10.0.0.1:4/tok en")
    assert code == 0
    out = (tmp_path / "out").read_text()
    assert out == f"1 2 {words[3:]} {tmp_path} 10.0.0.1:4/tok en ''\n"


def test_a_worker_ends_by_itself_or_when_an_event_says_so() -> None:
    event = threading.Event()
    command = [sys.executable, "-c", "import sys; sys.exit(7)"]
    assert run_worker(command, {}, [event])[0] == 7
    assert run_worker(["/no/such/program"], {}, [event])[0] == 127
    event.set()
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert run_worker(command, {}, [threading.Event(), event])[0] == 128 + 15


def request(
    server: BoundRendezvous, method: str, path: str, body: bytes = b""
) -> tuple[int, bytes]:
    """Send a request as a worker of the job does: gloo puts address and port together."""
    host, _, token = f"{server.secret_address}:0".partition("/")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request(method, f"/{token}{path}", body)
    response = connection.getresponse()
    return response.status, response.read()


class _Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("path", ["/worker_addresses/h:0", "/knet_hvd/hosts_updated"])
def test_the_server_does_not_unpickle(
    rendezvous: BoundRendezvous, tmp_path: Path, path: str
) -> None:
    """What CVE-2024-10190 is about: Horovod's handler would run it."""
    trap = base64.b64encode(pickle.dumps(_Touch(tmp_path / "executed")))
    assert request(rendezvous, "PUT", path, trap)[0] == 403
    assert request(rendezvous, "GET", path)[0] == 404
    assert not (tmp_path / "executed").exists()
    pickle.loads(base64.b64decode(trap)).close()
    assert (tmp_path / "executed").exists(), "the trap would not have shown it"


def test_the_server_keeps_what_gloo_sends_and_refuses_more(rendezvous: BoundRendezvous) -> None:
    assert request(rendezvous, "PUT", "/global/0", b"\0\xff")[0] == 200
    assert request(rendezvous, "GET", "/global/0") == (200, b"\0\xff")
    assert request(rendezvous, "HEAD", "/setup.py")[0] == 405
    connection = http.client.HTTPConnection(rendezvous.address, rendezvous.port, timeout=10)
    for length in (str((1 << 20) + 1), "-1", "many"):
        token = rendezvous.secret_address.partition("/")[2]
        connection.putrequest("PUT", f"/{token}:0/global/1")
        connection.putheader("Content-Length", length)
        connection.endheaders()  # and nothing of what was announced
        assert connection.getresponse().status == 413
        connection.close()


class _Resets:
    """Stand where Horovod's driver stands, and count who says that he is ready."""

    def __init__(self) -> None:
        self.num_ready = 0

    def record_ready(self, host: str, slot: int) -> None:
        self.num_ready += 1

    def get_slot_info(self, host: str, slot: int) -> Any:
        return INVALID_SLOT_INFO


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_strangers_change_nothing_and_spend_no_resets(method: str) -> None:
    driver = _Resets()
    server = BoundRendezvous("127.0.0.1")
    server.start(create_rendezvous_handler(driver))
    server.init([])
    try:
        assert request(server, "PUT", "/global/0", b"kept")[0] == 200
        token = server.secret_address.partition("/")[2]
        for first in ("", "x:0/", f"{token}/", f"{token[:-1]}:0/", f"{token}:00/"):
            for path in ("rank_and_size/localhost:0", "global/0", "global/1"):
                connection = http.client.HTTPConnection(server.address, server.port, timeout=10)
                connection.request(method, f"/{first}{path}", b"" if method == "GET" else b"x")
                assert connection.getresponse().status == 403
                connection.close()
        assert driver.num_ready == 0
        assert request(server, "GET", "/global/0") == (200, b"kept")
        assert request(server, "GET", "/global/1")[0] == 404
        assert request(server, "GET", "/rank_and_size/localhost:0")[0] == 200
        assert driver.num_ready == 1
    finally:
        server.stop()


def test_all_values_together_are_limited(rendezvous: BoundRendezvous) -> None:
    codes = [
        request(rendezvous, "PUT", f"/global/{number}", bytes(1 << 20))[0] for number in range(70)
    ]
    assert codes == 64 * [200] + 6 * [507]


def test_the_server_listens_on_its_address_alone(rendezvous: BoundRendezvous) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", rendezvous.port), timeout=5)


def test_workers_hear_of_changes_until_they_have_met(rendezvous: BoundRendezvous) -> None:
    watch = HostWatch(rendezvous.secret_address)

    def wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    assert not watch.has_changed
    rendezvous.announce()
    wait_for(lambda: watch.has_changed)
    watch.acknowledge()
    assert not watch.has_changed
    rendezvous.announce()
    wait_for(lambda: watch.has_changed)
    assert not watch.is_lost
    watch.close()
