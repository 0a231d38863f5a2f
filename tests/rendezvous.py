"""The server at which elastic ranks meet, for single and parallel tests."""

from collections.abc import Iterator

import pytest
from horovod.runner.elastic.rendezvous import create_rendezvous_handler

from knet_hvd.training.elastic.launcher.rendezvous import BoundRendezvous


@pytest.fixture
def rendezvous() -> Iterator[BoundRendezvous]:
    server = BoundRendezvous("127.0.0.1")
    server.start(create_rendezvous_handler(None))
    server.init([])
    yield server
    server.stop()
