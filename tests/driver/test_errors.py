"""Every error that servers are known to send, over real connections: what it is raised as, and what is left."""

from dataclasses import replace

import pytest

from oa_protocol import ChatLeakedWarning, OAError
from oa_protocol.bindings.replies import MAX_BODY
from oa_protocol.server import Answer, Close, Fault, Never, Reply, StreamFault
from oa_protocol.testing.error_table import ROWS, Row

from .site import Api, Site

pytestmark = pytest.mark.anyio

RAISED = [row for row in ROWS if row.error is not None]
RECOVERED = [row for row in ROWS if row.error is None and row.step in ("prompt", "request", "events")]


def name_of(row: Row) -> str:
    return f"{row.api}-{row.step}-{row.case}-{row.status}".replace(" ", "_")


@pytest.fixture
def api(row: Row) -> Api:
    return row.api


def faults(row: Row) -> list[Fault | StreamFault | Answer]:
    headers = () if row.content_type is None else (("content-type", row.content_type),)
    fault = Fault(row.step, before=Reply(row.status, row.body, headers), times=100)
    if row.step == "message":  # it is read if there is no stream
        return [fault, Answer(then=Never()), StreamFault(after_events=0, then=Close())]
    if row.step == "events":  # and then the message is read
        return [fault, replace(fault, step="message")]
    if row.step == "chat":  # it is read if a reply was lost
        return [fault, Fault("prompt", before=Close())]
    return [fault]


@pytest.mark.clause("OA-8.1", "OA-8.3", "OA-7.2", "OA-6.2")
@pytest.mark.parametrize("row", RAISED, ids=name_of)
@pytest.mark.filterwarnings("ignore::oa_protocol.ChatLeakedWarning")
async def test_an_error_reaches_the_caller_in_the_server_s_words(site: Site, row: Row) -> None:
    assert row.error is not None
    site.script(*faults(row))
    site.endless = True
    client = site.client()

    async def body() -> None:
        async with client:
            if row.step == "models":
                await client.models()
            async with client.chat() as chat:
                await chat.ask("Hello")

    with pytest.raises(OAError) as caught:
        await body()
    assert type(caught.value) is row.error
    for words in row.words:
        assert words in str(caught.value)
    assert site.chats == ()
    if row.step == "create" and row.status >= 500 and row.status != 503:
        assert {record.chat_id for record in client.leaked} == {None}
    else:
        assert client.leaked == []


@pytest.mark.clause("OA-6.1", "OA-8.3")
@pytest.mark.parametrize("row", RECOVERED, ids=name_of)
async def test_an_unclear_error_once_is_no_error(site: Site, row: Row) -> None:
    site.script(Answer(pieces=("Yes.",)), Fault(row.step, before=Reply(row.status, row.body)))
    async with site.client() as client, client.chat() as chat:
        assert await chat.ask("Hello") == "Yes."


@pytest.mark.clause("OA-5.10", "OA-6.8")
@pytest.mark.parametrize("row", [Row("", "website", "create", 200, None, b"", None)], ids=["website"])
@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"id": "../account/"}', b"\xff", b"x" * (MAX_BODY + 100)])
async def test_a_create_s_success_without_an_id_names_what_it_may_have_made(site: Site, row: Row, body: bytes) -> None:
    site.script(Fault("create", before=Reply(row.status, body)))
    client = site.client()
    chat = client.chat()
    with pytest.warns(ChatLeakedWarning), pytest.raises(OAError):
        async with client, chat:
            await chat.ask("Hello")
    assert len(client.leaked) == 1  # another try would only leave another chat
    assert "../" not in repr(site.steps)
