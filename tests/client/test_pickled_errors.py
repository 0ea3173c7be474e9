"""Errors survive pickling and copying, so that they can go to another process."""

import copy
import pickle

import pytest

from oa_protocol import (
    AnswerFailed,
    ApiError,
    AuthenticationError,
    ChatLeakedWarning,
    ClosedError,
    HTTPStatusError,
    JournalError,
    LocalProtocolError,
    MaybeSent,
    NotSent,
    OAError,
    ProtocolError,
    RemoteProtocolError,
    SlotError,
    TransportError,
)
from tests.driver.site import Site

ERRORS: list[Exception] = [
    OAError("text", phase="START"),
    ApiError("text", phase="PROMPTED", status=422, message="words"),
    HTTPStatusError("text", phase="PROMPTED", status=500),
    AuthenticationError("text", phase="START", status=401),
    TransportError("text"),
    NotSent("text", phase="START"),
    MaybeSent("text"),
    ProtocolError("text"),
    LocalProtocolError("text", phase="FAILED"),
    ClosedError("text"),
    RemoteProtocolError("text"),
    AnswerFailed("text", phase="STREAMING", text="so far"),
    JournalError("text"),
    SlotError("text"),
    ChatLeakedWarning("text"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_and_copying(error: Exception) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is type(error)
        assert str(other) == "text"
        assert vars(other) == vars(error)


def test_every_error_of_the_tree_is_among_them() -> None:
    def tree(kind: type[BaseException]) -> set[type[BaseException]]:
        shipped = [child for child in kind.__subclasses__() if child.__module__ == OAError.__module__]
        return {kind}.union(*(tree(child) for child in shipped))

    assert tree(OAError) <= {type(error) for error in ERRORS}


@pytest.mark.anyio
async def test_an_error_that_was_raised_survives_pickling(site: Site) -> None:
    client = site.client()
    chat = client.chat("nonsense")
    with pytest.raises(ApiError) as caught:
        async with client, chat:
            await chat.ask("Hello")
    other = pickle.loads(pickle.dumps(caught.value))
    assert (str(other), other.status, other.message) == (str(caught.value), 422, "Model nonsense not found")
