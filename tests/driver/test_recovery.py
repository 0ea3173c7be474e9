"""Replies that are lost and streams that break, over real connections: the right answer comes, and nothing is left."""

from pathlib import Path
from typing import Any

import pytest

from oa_protocol import AnswerFailed, AuthenticationError, ChatLeakedWarning, HTTPStatusError, Timeouts
from oa_protocol.engine.intents import OpenStream
from oa_protocol.server import (
    Abandon,
    Answer,
    Close,
    End,
    Fault,
    Freeze,
    Hang,
    Outcome,
    Reply,
    Reset,
    Send,
    Step,
    StreamAction,
    StreamFault,
    WorkerError,
)

from .site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("either_transport")]

CUTS: list[Outcome] = [Reset(), Close(), Reply(500, b"Internal Server Error"), Reply(502, b"<html>Bad Gateway")]
WORDS = Answer(pieces=("One ", "two ", "three."))
TEXT = "One two three."


async def ask(site: Site) -> str:
    async with site.client() as client, client.chat() as chat:
        return await chat.ask("Count")


@pytest.mark.clause("OA-6.1", "OA-6.10")
@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("step", ["prompt", "request"])
async def test_after_a_lost_reply_the_request_is_sent_again_only_if_it_is_missing(
    site: Site, step: Step, carried_out: bool, cut: Outcome
) -> None:
    site.script(WORDS, Fault(step, after=cut) if carried_out else Fault(step, before=cut))
    assert await ask(site) == TEXT
    assert site.steps.count(step) == (1 if carried_out else 2)
    assert "chat" in site.steps
    assert len(site.bodies("prompt")) in (1, 2)


@pytest.mark.clause("OA-7.3", "OA-7.4", "OA-7.5")
@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("carried_out", [False, True])
async def test_a_lost_reply_to_a_delete_is_cleared_up(site: Site, carried_out: bool, cut: Outcome) -> None:
    site.script(WORDS, Fault("delete", after=cut) if carried_out else Fault("delete", before=cut))
    assert await ask(site) == TEXT
    assert site.chats == ()
    assert site.steps.count("delete") == (1 if carried_out else 2)
    assert ("list" in site.steps) == (carried_out and site.api == "website")


@pytest.mark.clause("OA-6.8")
@pytest.mark.parametrize("cut", CUTS, ids=str)
async def test_a_lost_reply_to_a_create_is_tried_again_and_the_first_chat_is_named(site: Site, cut: Outcome) -> None:
    site.script(WORDS, Fault("create", after=cut))
    client = site.client()
    chat = client.chat()
    with pytest.warns(ChatLeakedWarning, match="id unknown"):
        async with client, chat:
            assert await chat.ask("Count") == TEXT
    assert [record.chat_id for record in client.leaked] == [None]
    site.left = set(site.chats)
    assert len(site.left) == 1


@pytest.mark.clause("OA-6.5", "OA-5.7")
@pytest.mark.parametrize("cut", [Reset(), Close(), End()], ids=str)
@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_stream_that_breaks_is_polled_and_never_opened_again(site: Site, after: int, cut: StreamAction) -> None:
    site.script(WORDS, StreamFault(after_events=after, then=cut))
    assert await ask(site) == TEXT
    assert site.steps.count("events") == 1
    assert "message" in site.steps


@pytest.mark.clause("OA-6.5", "OA-6.6")
@pytest.mark.parametrize("after", [0, 1])
async def test_a_stream_that_falls_silent_is_polled(site: Site, after: int, impatient_with: Any) -> None:
    site.script(WORDS, StreamFault(after_events=after, then=Hang()))
    # The website sends the head of its reply with the first event: until then it is the reply that is late.
    impatient_with(OpenStream, reply=0.5)
    async with site.client(timeouts=Timeouts(idle=0.5)) as client, client.chat() as chat:
        assert await chat.ask("Count") == TEXT
    assert site.steps.count("events") == 1


@pytest.mark.clause("OA-6.5")
@pytest.mark.parametrize("cut", CUTS, ids=str)
async def test_a_stream_that_is_refused_is_polled_and_not_asked_for_again(site: Site, cut: Outcome) -> None:
    site.script(WORDS, Fault("events", before=cut))
    assert await ask(site) == TEXT
    assert site.steps.count("events") == 1


@pytest.mark.clause("OA-5.7")
async def test_the_stream_of_a_finished_message_is_empty_and_the_message_is_read(site: Site) -> None:
    reply = Reply(200) if site.api == "website" else Reply(204)
    site.script(WORDS, Fault("events", before=reply))
    assert await ask(site) == TEXT
    assert site.steps.count("events") == 1


@pytest.mark.clause("OA-5.6")
async def test_after_a_cut_stream_the_rest_comes_as_one_more_piece(site: Site) -> None:
    site.script(WORDS, StreamFault(after_events=1, then=Reset()))
    async with site.client() as client, client.chat() as chat:
        pieces = [piece async for piece in chat.stream("Count")]
    assert "".join(pieces) == TEXT
    assert len(pieces) <= 2


@pytest.mark.clause("OA-6.3")
@pytest.mark.parametrize("step", ["create", "prompt", "request", "delete"])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_server_is_asked_again(site: Site, step: Step, status: int) -> None:
    site.script(WORDS, Fault(step, before=Reply(status), times=2))
    assert await ask(site) == TEXT
    assert site.steps.count(step) == 3


@pytest.mark.clause("OA-6.3")
async def test_retry_after_is_waited_for(site: Site) -> None:
    site.script(WORDS, Fault("prompt", before=Reply(503, headers=(("retry-after", "0.01"),))))
    assert await ask(site) == TEXT


@pytest.mark.clause("OA-6.3")
async def test_the_last_retry_is_the_last(site: Site) -> None:
    site.script(Fault("prompt", before=Reply(503), times=2))
    client = site.client(retries=1)
    chat = client.chat()
    with pytest.raises(HTTPStatusError, match="503"):
        async with client, chat:
            await chat.ask("Count")
    assert site.steps.count("prompt") == 2


@pytest.mark.clause("OA-6.4")
@pytest.mark.parametrize("api", ["website"])
@pytest.mark.parametrize("step", ["create", "prompt", "request", "delete"])
async def test_a_renewed_cookies_file_is_read_if_the_old_cookies_are_refused(
    site: Site, step: Step, tmp_path: Path
) -> None:
    jar = site.write_cookies(tmp_path / "cookies.txt")
    site.script(WORDS)
    async with site.client(cookies=jar) as client, client.chat() as chat:
        answer = chat.send("Count")
        names = {"create": "", "prompt": "Created", "request": "Prompted", "delete": "Answered"}
        if names[step]:
            async for event in answer:
                if type(event).__name__ == names[step]:
                    break
        else:
            await client.models()
        site.server.revoke()
        site.write_cookies(jar)
        async for _ in answer:
            pass
        assert answer.text == TEXT


@pytest.mark.clause("OA-6.4")
async def test_credentials_that_are_refused_and_cannot_be_renewed_fail(site: Site) -> None:
    client = site.client()
    site.server.revoke()
    with pytest.raises(AuthenticationError, match="Log in again"):
        async with client, client.chat() as chat:
            await chat.ask("Count")
    assert site.steps == ["create"]


@pytest.mark.clause("OA-6.4", "OA-7.2")
async def test_credentials_that_are_refused_at_the_end_leave_the_chat_and_name_it(site: Site) -> None:
    client = site.client()
    chat = client.chat()

    async def body() -> None:
        async with client, chat:
            await chat.ask("Count")
            site.server.revoke()

    with pytest.warns(ChatLeakedWarning):
        await body()
    assert [record.chat_id for record in client.leaked] == [chat.id]
    assert site.steps.count("delete") == 1
    site.left = {chat.id}


@pytest.mark.parametrize("api", ["website"])
@pytest.mark.clause("OA-6.4", "OA-7.2")
async def test_a_cookies_file_that_is_gone_at_the_end_does_not_replace_what_is_raised(
    site: Site, tmp_path: Path
) -> None:
    jar = site.write_cookies(tmp_path / "cookies.txt")
    client = site.client(cookies=jar)
    chat = client.chat()

    async def body() -> None:
        async with client, chat:
            await chat.ask("Count")
            jar.unlink()
            site.server.revoke()
            raise ZeroDivisionError

    with pytest.warns(ChatLeakedWarning), pytest.raises(ZeroDivisionError) as caught:
        await body()
    assert chat.id is not None
    assert chat.id in caught.value.__notes__[0]
    site.left = {chat.id}


@pytest.mark.clause("OA-5.9")
async def test_a_worker_error_fails_the_answer_with_the_text_so_far(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two."), after=1, then=WorkerError("out of memory")))
    with pytest.raises(AnswerFailed, match="out of memory") as caught:
        await ask(site)
    assert caught.value.text == "One "


@pytest.mark.clause("OA-5.8")
@pytest.mark.parametrize("state", ["cancelled", "timeout"])
async def test_a_message_that_shows_pending_for_ever_is_found_out(site: Site, state: str) -> None:
    site.script(Answer(then=Abandon("cancelled" if state == "cancelled" else "timeout")))
    with pytest.raises(AnswerFailed, match=state):
        await ask(site)
    assert site.steps.count("events") == 1


@pytest.mark.clause("OA-5.10")
async def test_a_stream_that_is_no_stream_of_this_protocol_fails(site: Site) -> None:
    site.script(WORDS, StreamFault(events=(b"data: {\r\n\r\n",), then=Send(b"")))
    with pytest.raises(RuntimeError, match="not an event of this protocol"):
        await ask(site)


@pytest.mark.clause("OA-6.9")
async def test_a_worker_that_is_frozen_is_given_up_on(site: Site) -> None:
    site.script(Answer(pieces=("One ",), after=1, then=Freeze()))
    client = site.client(timeouts=Timeouts(answer=1.5))
    chat = client.chat()
    with pytest.raises(AnswerFailed, match="in the time allowed") as caught:
        async with client, chat:
            await chat.ask("Count")
    assert caught.value.text == "One "
