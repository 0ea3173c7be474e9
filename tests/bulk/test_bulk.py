"""Many prompts through one client: what comes back, what is tried again, and what is left behind, which is nothing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest

from oa_protocol import AnswerFailed, ApiError, AuthenticationError, BulkPrompt, BulkResult, Client, ClosedError
from oa_protocol.client import bulk as bulk_module
from oa_protocol.server import Answer, Echo, Fault, Hold, Reply, WorkerError
from tests.driver.site import Site
from tests.sync.clients import client_of

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("site", [{"model": Echo()}], indirect=True)]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_module, "_FIRST_PAUSE", 0.001)


async def asked(client: Client, prompts: Any, **settings: Any) -> dict[object, BulkResult]:
    return {result.key: result async for result in client.bulk(prompts, **settings)}


async def test_each_prompt_has_its_answer_under_its_key(site: Site) -> None:
    async with site.client() as client:
        prompts = ["zero", BulkPrompt(key="b", prompt="one"), "two"]
        found = await asked(client, prompts)
    assert {key: result.text for key, result in found.items()} == {0: "zero", "b": "one", 2: "two"}
    for result in found.values():
        assert (result.error, result.tries) == (None, 1)
        assert result.waited is not None
        assert 0 < result.waited <= result.seconds


async def test_a_prompt_has_settings_of_its_own(site: Site) -> None:
    async with site.client() as client:
        prompt = BulkPrompt(prompt="x", model="OA_SFT_Llama_30B_6", sampling={"top_k": 7}, system_prompt="Be brief")
        await asked(client, [prompt])
    (body,) = site.bodies("request")
    assert (body["sampling_parameters"]["top_k"], body["system_prompt"]) == (7, "Be brief")


async def test_results_come_as_they_are_finished(site: Site) -> None:
    hold = Hold()
    site.script(Answer(then=hold))
    keys: list[object] = []
    async with site.client() as client, client.bulk(["slow", "quick"], concurrency=2) as results:
        async for result in results:
            keys.append(result.key)
            hold.release()
    assert len(keys) == 2


@pytest.mark.parametrize("kind", ["iterator", "asynchronous"])
async def test_prompts_are_taken_only_as_results_are_used(site: Site, kind: str) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield str(taken)

    async def asynchronous() -> AsyncIterator[str]:
        for prompt in endless():
            yield prompt

    prompts = endless() if kind == "iterator" else asynchronous()
    async with site.client() as client, client.bulk(prompts, concurrency=2) as results:
        for used in range(1, 4):
            await anext(results)
            await site.reached("delete", used)
            assert taken <= used + 2


async def test_no_more_run_at_a_time_than_asked_for(site: Site) -> None:
    site.script(Answer(then=Hold(), times=3))
    async with (
        site.client() as client,
        client.bulk(map(str, range(9)), concurrency=3) as results,
        anyio.create_task_group() as group,
    ):
        group.start_soon(anext, results)
        await site.reached("request", 3)
        assert (len(results.running), len(results.waiting)) == (3, 3)
        assert site.steps.count("create") == 3
        site.server.release()


async def test_a_failure_is_a_result_and_the_others_go_on(site: Site) -> None:
    site.script(Fault("request", before=Reply(422, b'{"detail": "no", "message": "no"}')))
    async with site.client() as client:
        found = await asked(client, [BulkPrompt(prompt="a"), "nul \0", "c"], concurrency=1)
    assert isinstance(found[0].error, ApiError)
    assert isinstance(found[1].error, ValueError)
    assert (found[2].text, found[2].error) == ("c", None)
    assert [result.tries for result in found.values()] == [1, 1, 1]


async def test_what_may_pass_is_asked_again_but_not_for_ever(site: Site) -> None:
    site.script(*(Answer(pieces=("so ", "far"), after=1, then=WorkerError("broken")) for _ in range(3)))
    async with site.client() as client:
        once_more, failed = (
            (await asked(client, ["x"], retries=1))[0],
            (await asked(client, ["x"], retries=0))[0],
        )
        assert isinstance(once_more.error, AnswerFailed)
        assert (once_more.tries, once_more.text.strip()) == (2, "so")
        assert (failed.tries, type(failed.error)) == (1, AnswerFailed)
        assert (await asked(client, ["x"]))[0].text == "x"
    assert site.steps.count("create") == 4


async def test_a_wrong_password_ends_it_at_once(site: Site) -> None:
    wrong: dict[str, Any] = (
        {"cookies": {"next-auth.session-token": "wrong"}} if site.api == "website" else {"token": "wrong"}
    )
    async with site.client(**wrong) as client, client.bulk(map(str, range(1000)), concurrency=2) as results:
        with pytest.raises(AuthenticationError):
            await anext(results)
        with pytest.raises(StopAsyncIteration):
            await anext(results)
    assert len(site.steps) < 10


async def test_a_slot_that_raises_a_cancellation_loses_no_prompt_silently(site: Site, anyio_backend: str) -> None:
    class Cancelled:
        async def enter(self, account: str) -> None:
            raise asyncio.CancelledError

        async def leave(self, account: str) -> None:
            raise NotImplementedError

    if anyio_backend == "asyncio":  # trio's cancellations can't be made by others
        async with site.client(slot=Cancelled()) as client:
            with pytest.raises(asyncio.CancelledError):
                await asked(client, ["one", "two"])


async def test_what_the_prompts_raise_is_raised_after_the_results(site: Site) -> None:
    def prompts() -> Iterator[str]:
        yield "one"
        raise LookupError("no more")

    keys: list[object] = []

    async def read(client: Client) -> None:
        results = client.bulk(prompts(), concurrency=1)
        while True:
            keys.append((await anext(results)).key)

    async with site.client() as client:
        with pytest.raises(LookupError, match="no more"):
            await read(client)
    assert keys == [0]


@pytest.mark.parametrize("how", ["break", "close", "end of client", "cancelled"])
async def test_however_the_loop_is_left_nothing_stays(site: Site, how: str) -> None:
    site.endless = True
    site.allowed.add("deleted while running")  # the held answers don't end in the time for draining
    site.script(Answer(pieces=("a ", "b"), after=1, then=Hold()), Answer(), Answer(then=Hold(), times=9))
    client = site.client()
    async with client:
        results = client.bulk(map(str, range(1000)), concurrency=3)
        match how:
            case "break":
                async with results:
                    async for _ in results:
                        break
                assert not results.running
            case "close":
                await anext(results)
                await results.aclose()
                await results.aclose()
                assert [result async for result in results] == []
            case "cancelled":
                with anyio.CancelScope() as scope:
                    async for _ in results:
                        scope.cancel()
            case _:
                await anext(results)
    assert client.leaked == []
    if how == "end of client":
        with pytest.raises(ClosedError):
            await anext(results)
    site.endless = True


async def test_a_loop_that_is_left_and_forgotten_is_ended(site: Site) -> None:
    site.endless = True
    site.allowed.add("deleted while running")
    site.script(Answer(), Answer(then=Hold(), times=99))
    async with site.client() as client:
        async for _ in client.bulk(map(str, range(1000)), concurrency=3):
            break
        gc.collect()
        await site.until(lambda: len(site.server.chats) == 0)


async def test_once_stopped_what_runs_is_finished_and_no_more_is_taken(site: Site) -> None:
    site.script(Answer(then=Hold(), times=2))
    found: list[str] = []
    async with site.client() as client, client.bulk(map(str, range(1000)), concurrency=2) as results:

        async def read() -> None:
            found.extend([result.text async for result in results])

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await site.reached("request", 2)
            results.stop()
            site.server.release()
    assert sorted(found) == ["0", "1"]


async def test_before_it_begins_it_can_be_closed_or_stopped(site: Site) -> None:
    async with site.client() as client:
        closed, stopped = client.bulk(["x"]), client.bulk(["x"])
        await closed.aclose()
        stopped.stop()
        assert [result async for result in closed] == [result async for result in stopped] == []
    with pytest.raises(ClosedError):
        await anext(client.bulk(["x"]))
    assert site.steps == []


async def test_what_cannot_be_used_is_refused_at_once(site: Site) -> None:
    async with site.client() as client:
        with pytest.raises(TypeError, match="not one string"):
            client.bulk("Hello")
        with pytest.raises(ValueError, match="concurrency must be at least 1"):
            client.bulk([], concurrency=0)
        with pytest.raises(ValueError, match="retries must be at least 0"):
            client.bulk([], retries=-1)
        assert await asked(client, []) == {}
        with pytest.raises(TypeError, match="prompt 1 must be a string or a BulkPrompt, not NoneType"):
            await asked(client, ["x", None])


async def test_threads_have_it_too_and_take_the_prompts_themselves(site: Site) -> None:
    import threading

    threads: set[int] = set()

    def prompts() -> Iterator[str]:
        for number in range(5):
            threads.add(threading.get_ident())
            yield str(number)

    def work() -> list[str]:
        with client_of(site) as client:
            texts = [result.text for result in client.bulk(prompts(), concurrency=2)]
            for _ in client.bulk(prompts(), concurrency=2):
                break
            with client.bulk(map(str, range(1000)), concurrency=2) as results:
                next(results)
                assert len(results.waiting) <= 2
                results.stop()
                texts += [result.text for result in results][:0]
            client.bulk(prompts()).close()
        assert threads == {threading.get_ident()}
        return texts

    assert sorted(await anyio.to_thread.run_sync(work)) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("strikes_at", range(1, 6))
async def test_in_threads_a_loop_that_was_interrupted_goes_on(site: Site, strikes_at: int) -> None:
    class Prompts:
        """Six prompts. A Ctrl-C strikes while one of them is taken."""

        taken = 0

        def __iter__(self) -> Iterator[str]:
            return self

        def __next__(self) -> str:
            self.taken += 1
            if self.taken == strikes_at:
                raise KeyboardInterrupt
            if self.taken > 7:
                raise StopIteration
            return f"prompt {self.taken}"

    def ask() -> None:
        with client_of(site) as client, client.bulk(Prompts(), concurrency=2) as results:
            keys: list[object] = []
            for _ in range(2):
                with suppress(KeyboardInterrupt):
                    for result in results:
                        keys.append(result.key)  # noqa: PERF401  # what came before the interruption stays
            assert sorted(map(str, keys)) == list("012345")

    await anyio.to_thread.run_sync(ask)
    assert site.chats == ()


async def test_in_threads_prompts_that_end_early_are_no_silent_success(site: Site) -> None:
    def prompts() -> Iterator[str]:
        yield "one"
        raise LookupError("no more")

    def work() -> list[str]:
        with client_of(site) as client:
            with pytest.raises(TypeError, match="not one string"):
                client.bulk("Hello")
            with pytest.raises(TypeError, match="prompt 1 must be"):
                list(client.bulk(["x", None]))  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
            results = client.bulk(prompts(), concurrency=1)
            texts = [next(results).text]
            with pytest.raises(LookupError, match="no more"):
                next(results)
            return texts + [result.text for result in results]

    with anyio.fail_after(10):
        assert await anyio.to_thread.run_sync(work, abandon_on_cancel=True) == ["one"]
