"""The drop-in for the historic client, on every way out of its generator."""

import gc
import inspect
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest

from oa_protocol import ApiError, ChatLeakedWarning, HTTPStatusError, OpenAssistant
from oa_protocol.client.compat import format_prompt
from oa_protocol.server import Answer, Fault, Hold, Reply, Server
from tests.driver.site import HASTY, Site, settle

pytestmark = pytest.mark.anyio


def generator(site: Site, **more: Any) -> AsyncGenerator[str, None]:
    messages = [{"role": "user", "content": "Hello"}]
    settings: dict[str, Any] = {
        "base_url": site.server.url,
        "api": site.api,
        "cleanup": HASTY,
        **site.credentials,
        **more,
    }
    found: AsyncIterator[str] = OpenAssistant.create_async_generator("", messages, **settings)
    return cast("AsyncGenerator[str, None]", found)


def test_it_has_the_historic_interface() -> None:
    assert OpenAssistant.url == "https://open-assistant.io/chat"
    assert OpenAssistant.needs_auth is OpenAssistant.working is True
    assert OpenAssistant.model == "OA_SFT_Llama_30B_6"
    assert list(inspect.signature(OpenAssistant.create_async_generator).parameters) == [
        "model", "messages", "proxy", "cookies", "kwargs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([{"role": "user", "content": "Hi"}], "Hi"),
        ([{"role": "system", "content": ["a", {"type": "text", "text": "b"}]}], "ab"),
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
            "User: a\nAssistant: b\nUser: c\nAssistant:",
        ),
        ([{"role": "user", "content": None}], ""),
        ([{"role": "user"}], ""),
        (
            [{"role": "assistant"}, {"role": "user", "content": "c"}],
            "Assistant: \nUser: c\nAssistant:",
        ),
        ([{"role": "user", "content": ({"type": "image_url"}, {"text": "x"})}], "x"),
    ],
)
def test_messages_become_one_prompt(messages: list[dict[str, Any]], prompt: str) -> None:
    assert format_prompt(messages) == prompt


def test_which_of_several_messages_has_no_role_is_named() -> None:
    with pytest.raises(ValueError, match="message 2 has no role"):
        format_prompt([{"role": "user", "content": "a"}, {"content": "b"}])


async def test_none_stands_for_the_default(site: Site) -> None:
    assert "".join([piece async for piece in generator(site, plugins=None, timeouts=None, slot=None)])


@pytest.mark.clause("OA-4.7")
async def test_several_calls_at_once_take_turns(site: Site) -> None:
    hold, answers = Hold(), list[str]()

    async def ask() -> None:
        answers.append("".join([piece async for piece in generator(Site(server, site.api))]))

    with Server(workers=1) as server:
        server.script(Answer(pieces=("Yes", "."), after=1, then=hold))
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask)
            await anyio.to_thread.run_sync(server.wait_for, "request", 2)
            await settle()
            hold.release()
        assert server.chats == ()
    assert len(answers) == 3


@pytest.mark.usefixtures("no_environment")
async def test_no_messages_are_refused() -> None:
    with pytest.raises(ValueError, match="messages"):
        await anext(OpenAssistant.create_async_generator("", []))


@pytest.mark.usefixtures("no_environment")
async def test_without_a_server_it_says_that_the_historic_one_closed() -> None:
    with pytest.raises(ValueError, match="closed in 2023"):
        await anext(OpenAssistant.create_async_generator("", [{"role": "user", "content": "Hi"}]))


async def test_an_error_message_of_the_api_is_raised_as_a_runtime_error_that_carries_it(site: Site) -> None:
    async def body() -> None:
        messages = [{"role": "user", "content": "Hi"}]
        settings = {"base_url": site.server.url, "api": site.api, **site.credentials}
        await anext(OpenAssistant.create_async_generator("nonsense", messages, **settings))

    with pytest.raises(RuntimeError, match="Model nonsense not found") as caught:
        await body()
    assert isinstance(caught.value, ApiError)
    assert caught.value.status == 422


async def test_an_http_error_is_raised_with_its_status(site: Site) -> None:
    site.script(Fault("prompt", before=Reply(413)))
    with pytest.raises(HTTPStatusError) as caught:
        await anext(generator(site))
    assert caught.value.status == 413


@pytest.mark.clause("OA-7.2")
async def test_break_and_aclose(site: Site) -> None:
    async with aclosing(generator(site)) as pieces:
        async for _ in pieces:
            break
    assert site.chats == ()


@pytest.mark.clause("OA-7.2")
async def test_aclose_before_the_first_piece_sends_nothing(site: Site) -> None:
    await generator(site).aclose()
    assert site.steps == []


@pytest.mark.clause("OA-7.2")
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
async def test_break_without_aclose(site: Site) -> None:
    async for _ in generator(site):
        break
    gc.collect()
    await site.until(lambda: site.server.chats == () and site.steps[-1] == "delete")


@pytest.mark.clause("OA-7.2")
async def test_an_exception_while_it_is_read(site: Site) -> None:
    async def body() -> None:
        async with aclosing(generator(site)) as pieces:
            async for _ in pieces:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    assert site.chats == ()


@pytest.mark.clause("OA-4.3", "OA-7.2")
async def test_a_cancellation_while_the_create_is_under_way(site: Site) -> None:
    hold = Hold()
    site.script(Fault("create", after=hold))
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def interrupt() -> None:
                await site.until(lambda: len(site.chats) == 1)
                scope.cancel()
                with anyio.CancelScope(shield=True):
                    await settle()
                hold.release()

            group.start_soon(interrupt)
            async for _ in generator(site):
                pytest.fail("it was cancelled")
    assert site.chats == ()
    assert site.steps == ["create", "delete"]


@pytest.mark.clause("OA-7.2")
async def test_a_cancellation_in_the_middle_of_the_stream(site: Site) -> None:
    hold = Hold()
    site.script(Answer(pieces=("One ", "two."), after=1, then=hold))
    with anyio.CancelScope() as scope:
        async for _ in generator(site):
            scope.cancel()
    assert scope.cancelled_caught
    assert site.chats == ()
    hold.release()


@pytest.mark.clause("OA-7.2")
async def test_a_leak_is_warned_of_after_a_break_even_if_warnings_are_errors(site: Site) -> None:
    site.script(Fault("delete", before=Reply(500), times=3))
    pieces = generator(site)
    await anext(pieces)
    (chat_id,) = site.chats
    site.left = {chat_id}
    with pytest.raises(ChatLeakedWarning, match=chat_id):
        await pieces.aclose()


@pytest.mark.usefixtures("no_environment")
@pytest.mark.parametrize(("mistyped", "meant"), [("temprature", "temperature"), ("base_ulr", "base_url")])
async def test_a_mistyped_keyword_is_refused_and_the_right_one_named(mistyped: str, meant: str) -> None:
    wrong: dict[str, Any] = {mistyped: 1}
    with pytest.raises(TypeError, match=f"{mistyped}.*did you mean {meant}"):
        await anext(OpenAssistant.create_async_generator("", [{"role": "user", "content": "Hi"}], **wrong))


@pytest.mark.usefixtures("no_environment")
async def test_a_keyword_that_resembles_none_is_refused() -> None:
    with pytest.raises(TypeError, match="unknown keyword: xyzzy"):
        await anext(OpenAssistant.create_async_generator("", [{"role": "user", "content": "Hi"}], xyzzy=1))
