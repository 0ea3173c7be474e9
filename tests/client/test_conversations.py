"""Whole conversations, from the prompt to the chat's end, over both APIs and on both event loops."""

from itertools import pairwise

import pytest

from oa_protocol import AnswerFailed, Cleanup, ClosedError, LocalProtocolError, Phase
from oa_protocol.engine.events import Answered, Created, Prompted, Queued, Requested, Token
from oa_protocol.server import Answer, Close, Echo, Hold, StreamFault
from tests.driver.site import PATIENCE, Site

pytestmark = pytest.mark.anyio


@pytest.mark.clause("OA-4.2", "OA-7.2")
async def test_entering_and_leaving_a_chat_sends_nothing(site: Site) -> None:
    async with site.client() as client, client.chat() as chat:
        assert repr(chat) == "<Chat None START>"
    assert repr(chat) == "<Chat None NEVER_CREATED>"
    assert site.steps == []


async def test_an_answer_that_is_not_iterated_sends_nothing(site: Site) -> None:
    async with site.client() as client, client.chat() as chat:
        chat.send("Hello")
        chat.stream("Hello")
    assert site.steps == []


@pytest.mark.clause("OA-1.2", "OA-7.2", "OA-7.7")
async def test_ask_returns_the_whole_answer_and_leaves_nothing(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two ", "three.")))
    async with site.client() as client, client.chat() as chat:
        assert await chat.ask("Count") == "One two three."
        assert [chat.id for chat in site.server.chats] == [chat.id]
    assert chat.phase is Phase.DELETED
    assert site.steps == ["create", "prompt", "request", "events", "delete"]
    assert client.leaked == []


async def test_send_tells_what_happens_in_its_order(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two.")))
    async with site.client() as client, client.chat() as chat:
        answer = chat.send("Count")
        events = [event async for event in answer if not isinstance(event, Queued)]
        match events:
            case [Created(), Prompted(), Requested(message_id=ours), Token("One "), Token("two."), Answered(message)]:
                assert message.id == ours
                assert answer.message == message
                assert answer.text == "One two."
            case _:
                pytest.fail(str(events))


async def test_stream_yields_the_pieces_of_the_text(site: Site) -> None:
    site.script(Answer(pieces=("One ", "", "two.")))
    async with site.client() as client, client.chat() as chat:
        stream = chat.stream("Count")
        assert [piece async for piece in stream] == ["One ", "two."]
        assert stream.answer.text == "One two."


@pytest.mark.parametrize("site", [{"model": Echo()}], indirect=True)
@pytest.mark.clause("OA-3.3")
async def test_each_prompt_follows_the_last_complete_answer(site: Site) -> None:
    async with site.client() as client, client.chat() as chat:
        assert await chat.ask("One") == "One"
        assert "".join([piece async for piece in chat.stream("Two")]) == "Two"
        async for _ in chat.send("Three"):
            pass
        (kept,) = site.server.chats
    assert [message.content for message in kept.messages] == ["One", "One", "Two", "Two", "Three", "Three"]
    assert kept.messages[0].parent_id is None
    for parent, child in pairwise(kept.messages):
        assert child.parent_id == parent.id


async def test_chats_of_one_client_are_independent(site: Site) -> None:
    site.script(Answer(pieces=("first",)), Answer(pieces=("second",)))
    async with site.client() as client, client.chat() as first, client.chat() as second:
        assert await first.ask("Hello") == "first"
        assert await second.ask("Hello") == "second"
        assert first.id != second.id
        assert len(site.chats) == 2


async def test_the_empty_prompt_is_sent(site: Site) -> None:
    site.script(Answer(pieces=("What?",)))
    async with site.client() as client, client.chat() as chat:
        assert await chat.ask("") == "What?"
    assert site.prompts() == [""]


@pytest.mark.clause("OA-5.6")
async def test_ask_returns_the_final_text_if_it_contradicts_the_tokens(site: Site) -> None:
    site.script(Answer(pieces=("wrong",), final="right"))
    async with site.client() as client, client.chat() as chat:
        assert await chat.ask("Hello") == "right"


@pytest.mark.clause("OA-5.6")
async def test_stream_ends_normally_after_a_whole_stream_whose_final_text_differs(site: Site) -> None:
    site.script(Answer(pieces=("wrong",), final="right"))
    async with site.client() as client, client.chat() as chat:
        stream = chat.stream("Hello")
        assert [piece async for piece in stream] == ["wrong"]
        assert stream.answer.text == "right"


@pytest.mark.clause("OA-5.6")
async def test_stream_raises_if_it_was_cut_and_the_pieces_were_wrong(site: Site) -> None:
    site.script(Answer(pieces=("wrong ", "still "), final="right"), StreamFault(after_events=1, then=Close()))
    async with site.client() as client, client.chat() as chat:
        pieces: list[str] = []
        with pytest.raises(AnswerFailed, match="cut") as caught:
            pieces.extend([piece async for piece in chat.stream("Hello")])
        assert caught.value.text == "right"


async def test_an_answer_given_up_half_way_is_read_to_its_end_before_the_next_prompt(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two."), after=1), Answer(pieces=("Three.",)))
    async with site.client() as client, client.chat() as chat:
        async for _ in chat.stream("Count"):
            break
        assert await chat.ask("Go on") == "Three."
        (kept,) = site.server.chats
        assert [message.content for message in kept.messages] == ["Count", "One two.", "Go on", "Three."]


async def test_an_answer_overtaken_by_the_next_still_tells_everything(site: Site) -> None:
    site.script(Answer(pieces=("One ", "two.")), Answer(pieces=("Three.",)))
    async with site.client() as client, client.chat() as chat:
        first = chat.stream("Count")
        assert await anext(first) == "One "
        assert await chat.ask("Go on") == "Three."
        assert [piece async for piece in first] == ["two."]
        assert first.answer.text == "One two."


async def test_an_iterated_answer_stays_at_its_end(site: Site) -> None:
    async with site.client() as client, client.chat() as chat:
        answer = chat.send("Hello")
        assert len([event async for event in answer]) > 0
        assert [event async for event in answer] == []


async def test_after_a_failure_a_further_prompt_names_it(site: Site) -> None:
    async with site.client() as client, client.chat("no such model") as chat:
        with pytest.raises(RuntimeError, match="no such model"):
            await chat.ask("Hello")
        with pytest.raises(LocalProtocolError, match="Model no such model not found"):
            await chat.ask("Hello")


async def test_a_failed_answer_keeps_failing(site: Site) -> None:
    async with site.client() as client, client.chat("no such model") as chat:
        answer = chat.send("Hello")
        with pytest.raises(RuntimeError, match="no such model"):
            _ = [event async for event in answer]
        assert [event async for event in answer] == []


async def test_a_closed_chat_takes_no_prompt(site: Site) -> None:
    async with site.client() as client, client.chat() as chat:
        await chat.ask("Hello")
    with pytest.raises(LocalProtocolError, match="DELETED"):
        await chat.ask("Hello")


async def test_the_models_are_returned(site: Site) -> None:
    async with site.client() as client:
        assert "OA_SFT_Llama_30B_6" in [model.name for model in await client.models()]
    assert site.steps == ["models"]


async def test_a_running_answer_is_waited_for_before_its_chat_is_deleted(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    async with site.client(cleanup=Cleanup(drain=PATIENCE, timeout=PATIENCE)) as client, client.chat() as chat:
        async for _ in chat.stream("Count"):
            hold.release()
            break
    assert "message" in site.steps[: site.steps.index("delete")]


@pytest.mark.clause("OA-6.11")
async def test_a_closed_chat_says_so(site: Site) -> None:
    async with site.client() as client:
        async with client.chat() as chat:
            await chat.ask("Hello")
        with pytest.raises(ClosedError, match=r"^the chat is closed \(phase DELETED\)$") as refused:
            await chat.ask("Hello")
        assert refused.value.phase == "DELETED"
