"""The server that workers of an elastic job meet at: on one address, without pickles.

Horovod's own listens on all addresses, and unpickles what anyone sends to its scope
``worker_addresses`` (CVE-2024-10190): the addresses of the services on which workers
want to hear of new hosts. Here workers have no such service. They ask this server
instead, so that it need not take anything but gloo's addresses, which are plain bytes.

Every path begins with a token that only the launcher's workers are told. Gloo knows of no
tokens, but makes its URLs of the text of an address and a port: the address that workers
get is ``127.0.0.1:40000/TOKEN``, and the port that gloo appends ends the token.
"""

import hmac
import logging
import secrets
import threading
from typing import Any

from horovod.runner.elastic.rendezvous import PUT_WORKER_ADDRESSES
from horovod.runner.http.http_server import RendezvousHTTPServer, RendezvousServer

SCOPE, KEY = "knet_hvd", "hosts_updated"
_logger = logging.getLogger("knet_hvd")
_MAX_BYTES = 1 << 20
"""Gloo's addresses are some hundred bytes for each pair of ranks."""
_MAX_STORED_BYTES = 1 << 26
"""Of all values together."""
PORT = 0
"""What workers are told in place of the port, which is in the address."""


class _Server(RendezvousHTTPServer):  # type: ignore[misc]
    daemon_threads = True  # one that waits for workers does not keep the launcher

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a worker that dies while it is answered."""
        _logger.debug("a request from %s broke off", client_address, exc_info=True)


class BoundRendezvous(RendezvousServer):  # type: ignore[misc]
    """Horovod's rendezvous server on one address."""

    def __init__(self, address: str) -> None:
        """Listen to nothing yet.

        Args:
            address: IPv4.
        """
        super().__init__()
        self.address = address
        self.port = 0
        self._token = secrets.token_urlsafe(24)
        self._num_announced = 0

    def start(self, handler_cls: Any) -> int:
        """Serve in a thread; return the port.

        Args:
            handler_cls: Of Horovod's ``create_rendezvous_handler``.
        """
        handler = _guarded(handler_cls, f"{self._token}:{PORT}")
        self._httpd = _Server((self.address, 0), handler, 0)
        self._listen_thread = threading.Thread(target=self._httpd.serve_forever, daemon=True)
        self._listen_thread.start()
        self.port = int(self._httpd.server_port)
        return self.port

    @property
    def secret_address(self) -> str:
        """The address that workers are given: with port and token."""
        return f"{self.address}:{self.port}/{self._token}"

    def announce(self) -> None:
        """Let workers know that hosts came or went, until they form a new group.

        What they read is a number that grows.
        """
        self._num_announced += 1
        with self._httpd.cache_lock:
            scope = self._httpd.cache.setdefault(SCOPE, {})
            scope[KEY] = str(self._num_announced).encode()


def _guarded(handler_cls: Any, token: str) -> Any:
    """Return a handler that refuses strangers, and what gloo and our workers never send."""

    class Handler(handler_cls):  # type: ignore[misc]
        path: str

        def do_GET(self) -> None:
            if self._admit():
                super().do_GET()

        def do_DELETE(self) -> None:
            if self._admit():
                super().do_DELETE()

        def do_PUT(self) -> None:
            if not self._admit():
                return
            scope = self.path.split("/")[1] if "/" in self.path else ""
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > _MAX_BYTES:
                self._refuse(413)
            elif scope in (PUT_WORKER_ADDRESSES, SCOPE):
                self.rfile.read(int(length))  # else the answer could be lost
                self._refuse(403)
            elif self._stored_bytes() + int(length) > _MAX_STORED_BYTES:
                self.rfile.read(int(length))
                self._refuse(507)
            else:
                super().do_PUT()

        def do_HEAD(self) -> None:
            self._refuse(405)  # the base class would look for files

        def _admit(self) -> bool:
            """Take the token off the path; refuse the request if it is not there."""
            first, _, rest = self.path.removeprefix("/").partition("/")
            if hmac.compare_digest(first.encode(), token.encode()):
                self.path = f"/{rest}"
                return True
            self._refuse(403)
            return False

        def _stored_bytes(self) -> int:
            with self.server.cache_lock:
                scopes = list(self.server.cache.values())
                return sum(len(value) for scope in scopes for value in scope.values())

        def _refuse(self, code: int) -> None:
            self.close_connection = True
            self.send_status_code(code)

    return Handler
