"""A worker's way of hearing that hosts came or went: it asks the launcher's server."""

import http.client
import os
import threading

from knet_hvd.training.elastic.launcher.rendezvous import KEY, PORT, SCOPE

_EVERY_S = 1.0
_TIMEOUT_S = 5.0
_MAX_FAILURES = 10


class HostWatch:
    """Ask once a second, in a thread.

    Attributes:
        is_lost: The launcher has not answered for ten seconds.
    """

    def __init__(self, secret_address: str) -> None:
        """Start asking.

        Args:
            secret_address: See ``BoundRendezvous.secret_address``.
        """
        self.is_lost = False
        self._server, _, token = secret_address.partition("/")
        self._path = f"/{token}:{PORT}/{SCOPE}/{KEY}"
        self._latest = self._seen = 0
        self._stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    @classmethod
    def of_environment(cls) -> "HostWatch":
        """Watch the launcher that started this process."""
        return cls(os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"])

    @property
    def has_changed(self) -> bool:
        """Whether hosts came or went since ``acknowledge``."""
        return self._latest > self._seen

    def acknowledge(self) -> None:
        """Take what is known for seen: workers have formed the group again."""
        self._seen = self._latest

    def close(self) -> None:
        """Ask no more."""
        self._stopped.set()

    def _run(self) -> None:
        failures = 0
        while not self._stopped.wait(_EVERY_S):
            try:
                self._latest = max(self._latest, self._ask())
                failures = 0
            except (OSError, http.client.HTTPException, ValueError):
                failures += 1
            self.is_lost = failures >= _MAX_FAILURES

    def _ask(self) -> int:
        """Return the number of the latest announcement; 0 if there is none."""
        connection = http.client.HTTPConnection(self._server, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", self._path)
            response = connection.getresponse()
            text = response.read(64)
            return int(text) if response.status == http.client.OK else 0
        finally:
            connection.close()
