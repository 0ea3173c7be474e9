from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from oa_protocol.server import Account, Server

from .helpers import Inference, Peer, Website

Connect = Callable[..., Peer]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(reader_grace=60, pending_interval=60) as running:
        yield running


@pytest.fixture(params=[Website, Inference], ids=["website", "inference"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes clients of one API, for any server and account."""
    with ExitStack() as stack:

        def make(server: Server, account: Account | None = None) -> Peer:
            peer: Peer = request.param(server, account)
            stack.enter_context(peer.http)
            return peer

        yield make


@pytest.fixture
def peer(server: Server, connect: Connect) -> Peer:
    return connect(server)


@pytest.fixture
def website(server: Server) -> Iterator[Website]:
    made = Website(server)
    with made.http:
        yield made


@pytest.fixture
def inference(server: Server) -> Iterator[Inference]:
    made = Inference(server)
    with made.http:
        yield made
