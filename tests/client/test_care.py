"""How a client handles misuse, many chats at once, and chats that are never closed."""

import copy
import gc
import pickle

import anyio
import pytest

from oa_protocol import (
    AnswerFailed,
    ApiError,
    AuthenticationError,
    Chat,
    ChatLeakedWarning,
    Cleanup,
    ClosedError,
    HTTPStatusError,
    JournalError,
    LocalProtocolError,
    MaybeSent,
    NotSent,
    OAError,
    Phase,
    ProtocolError,
    RemoteProtocolError,
    SlotError,
    TransportError,
)
from oa_protocol.server import Answer, Fault, Hold
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


@pytest.mark.anyio
@pytest.mark.clause("OA-6.11")
async def test_two_tasks_cannot_use_one_chat_at_once(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("Yes.",)), Fault("prompt", before=hold))
    async with site.client() as client, client.chat() as chat, anyio.create_task_group() as group:

        async def ask() -> None:
            assert await chat.ask("Hello") == "Yes."

        group.start_soon(ask)
        await site.reached("prompt")
        for _ in range(2):
            with pytest.raises(LocalProtocolError, match="in use by another task"):
                await chat.ask("And me?")
        hold.release()
    assert site.prompts() == ["Hello"]


@pytest.mark.anyio
@pytest.mark.parametrize("site", [{"workers": 100}], indirect=True)
async def test_a_hundred_chats_at_once(site: Site) -> None:
    answers: list[str] = []
    async with site.client(cleanup=Cleanup(timeout=60)) as client, anyio.create_task_group() as group:

        async def converse(number: int) -> None:
            async with client.chat() as chat:
                answers.append(await chat.ask(f"Prompt {number}"))

        for number in range(100):
            group.start_soon(converse, number)
    assert len(answers) == 100
    assert all(answers)
    assert client.leaked == []


@pytest.mark.anyio
@pytest.mark.parametrize("site", [{"workers": 100}], indirect=True)
@pytest.mark.clause("OA-7.2")
async def test_a_hundred_chats_cancelled_at_once(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold, times=100))
    chats: list[Chat] = []
    async with site.client(cleanup=Cleanup(drain=0, timeout=60)) as client:
        async with anyio.create_task_group() as group:

            async def converse() -> None:
                async with client.chat() as chat:
                    chats.append(chat)
                    await chat.ask("Hello")

            for _ in range(100):
                group.start_soon(converse)
            await site.reached("events", 100)
            group.cancel_scope.cancel()
        assert {chat.phase for chat in chats} == {Phase.DELETED}
    assert site.chats == ()
    hold.release()


@pytest.mark.anyio
async def test_a_chat_that_is_never_closed_is_warned_of(site: Site) -> None:
    async def careless() -> str | None:
        chat = site.client().chat()
        await chat.ask("Hello")
        return chat.id

    async def forgotten() -> str | None:
        chat_id = await careless()
        gc.collect()  # if it was not collected already
        return chat_id

    with pytest.warns((ChatLeakedWarning, ResourceWarning)) as caught:  # its connection's is another
        chat_id = await forgotten()
    assert chat_id is not None
    site.left = {chat_id}
    assert [chat_id in str(each.message) for each in caught if each.category is ChatLeakedWarning] == [True]


@pytest.mark.anyio
async def test_a_chat_without_a_prompt_needs_no_closing(site: Site) -> None:
    client = site.client()
    client.chat()
    del client
    gc.collect()
