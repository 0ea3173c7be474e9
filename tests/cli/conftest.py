from collections.abc import Iterator
from pathlib import Path

import pytest

from oa_protocol.server import Echo, Server

from .command import RUNNING
from .pseudo_terminal import Pseudo


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that answers with the prompt. The command must have done nothing wrong on the wire."""
    with Server(Echo(), reader_grace=60) as running:
        yield running
        findings = [finding for finding in running.verdict() if finding.kind != "chat left"]
        assert not findings, "\n".join(map(str, findings))


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's state folder. It contains the journal by default."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Ends what a test that failed has left running."""
    yield
    while RUNNING:
        with RUNNING.pop() as process:
            process.kill()


@pytest.fixture
def terminal() -> Iterator[Pseudo]:
    with Pseudo() as made:
        yield made
