"""Many prompts: each is asked in a chat of its own, and several at a time.

The prompts are taken only as the results are used, so there may be any number of them. Whatever ends the loop, the
chats are deleted, or named, like all chats of the client.
"""

# A bulk uses private parts of its client and its chats.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import anyio
import anyio.abc
import msgspec

from oa_protocol.bindings.json import SamplingParameters
from oa_protocol.client._background import spawn
from oa_protocol.client.chat import Chat
from oa_protocol.engine.errors import (
    AnswerFailed,
    ApiError,
    AuthenticationError,
    ClosedError,
    HTTPStatusError,
    JournalError,
    OAError,
    RemoteProtocolError,
    SlotError,
    TransportError,
)
from oa_protocol.engine.events import Token
from oa_protocol.engine.timers import check_count

if TYPE_CHECKING:
    from oa_protocol.client.client import Client

Key = str | int

# Each of these would fail the other prompts as well, so it ends the whole loop.
_FATAL = (AuthenticationError, ClosedError, JournalError, SlotError)

_FIRST_PAUSE = 1.0  # seconds before the second try; it doubles each time
_LONGEST_PAUSE = 60.0


class BulkPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt with settings of its own. The settings are those of ``Client.chat``.

    Attributes:
        prompt: the text.
        key: names the prompt in its result. By default it is the prompt's number, and the first one is 0.

    """

    prompt: str
    key: Key | None = None
    model: str | None = None
    sampling: SamplingParameters | Mapping[str, object] | None = None
    plugins: Sequence[Mapping[str, object]] = ()
    system_prompt: str | None = None
    user_profile: str | None = None
    user_response_instructions: str | None = None


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one prompt.

    Attributes:
        key: the prompt's key.
        text: the answer. If it failed, the part of it that arrived.
        error: why it failed, or None.
        tries: how often it was asked.
        begun_at: when it was asked first, as a Unix time in seconds.
        waited: how many seconds passed between the last try and the first token of its answer, or None if there was
            none.
        seconds: how many seconds it took altogether, with all tries, and until its last chat was deleted.

    """

    key: Key
    text: str
    error: Exception | None
    tries: int
    begun_at: float
    waited: float | None
    seconds: float


class Bulk:
    """The results of many prompts, in the order in which they are finished. Make one with ``Client.bulk``.

    Iterate over it. If you may leave the loop early, use it with ``async with``, or close it with ``aclose``. Otherwise
    what still runs is ended only when this object is garbage, or when the client is closed.
    """

    def __init__(self, work: _Work) -> None:
        self._work = work

    @property
    def running(self) -> Mapping[Key, Chat]:
        """The chats of the prompts that are under way, by their keys."""
        return dict(self._work.running)

    @property
    def waiting(self) -> Sequence[Key]:
        """The keys of the prompts under way whose answers no worker has begun."""
        return [key for key in self._work.running if key not in self._work.begun]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what still runs, and delete its chats. You may call it again."""
        self._work.cancel()
        await self._work.ended()

    def stop(self) -> None:
        """Take no more prompts. What runs goes on, so the results of that still come."""
        self._work.stop()

    def __del__(self) -> None:
        self._work.abandon()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BulkResult:
        """Return the next result.

        Raises:
            AuthenticationError: there are no credentials, or the server refuses them.
            JournalError, SlotError: the journal or the slot can't be used.
            ClosedError: the client is closed.
            Exception: what iterating over the prompts raised.

        """
        result = await self._step()
        if result is None:
            raise StopAsyncIteration
        return cast("BulkResult", result)

    async def _step(self) -> BulkResult | _Hungry | None:
        return await self._work.next()


class _Hungry:
    """Says that one more prompt is needed. See ``_Feed``."""


class _Feed:
    """Prompts that are handed in one by one, because they come from another thread."""

    def __init__(self) -> None:
        self.work: _Work | None = None
        self._prompts: deque[Prompt | Exception] = deque()
        self._fed = anyio.Event()

    def put(self, prompt: Prompt | Exception) -> None:
        """Hand in the next prompt, or what iterating over the prompts raised. ``StopIteration`` is their end."""
        self._prompts.append(prompt)
        self._fed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Prompt:
        cast("_Work", self.work).put(_Hungry())
        while not self._prompts:
            self._fed = anyio.Event()
            await self._fed.wait()
        prompt = self._prompts.popleft()
        if isinstance(prompt, StopIteration):
            raise StopAsyncIteration
        if isinstance(prompt, Exception):
            raise prompt
        return prompt


Prompt = str | BulkPrompt


def check_prompts(prompts: object) -> None:
    """Raise TypeError if ``prompts`` is one string, because its letters would be asked."""
    if isinstance(prompts, str):
        raise TypeError("prompts must be several prompts, for example a list, and not one string")


class _Work:
    """What goes on behind a ``Bulk``. It runs in a task of the event loop, and knows nothing of that object."""

    def __init__(
        self, client: Client, prompts: Iterable[Prompt] | AsyncIterable[Prompt], concurrency: int, retries: int
    ) -> None:
        check_count("concurrency", concurrency, 1)
        check_count("retries", retries, 0)
        check_prompts(prompts)
        self.running: dict[Key, Chat] = {}
        self.begun: set[Key] = set()
        self._client = client
        self._prompts: AsyncIterator[Prompt] = (
            aiter(prompts) if isinstance(prompts, AsyncIterable) else _Asynchronous(iter(prompts))
        )
        self._retries = retries
        # A place is taken before a prompt is, and it is free again when its result has been used. So however slow the
        # reader is, no more than this many prompts and results are in memory.
        self._places = anyio.Semaphore(concurrency)
        self._results: deque[BulkResult | _Hungry] = deque()
        self._changed = anyio.Event()
        # These are None until it begins, because a scope can be made only in an event loop.
        self._scope: anyio.CancelScope | None = None
        self._taking: anyio.CancelScope | None = None
        self._thread: int | None = None
        self._failure: BaseException | None = None
        self._has_ended = False
        if isinstance(prompts, _Feed):
            prompts.work = self

    # ---- for the reader

    async def next(self) -> BulkResult | _Hungry | None:
        """Return the next result, or None at the end. Raise what ended it, once what still ran is cleaned up."""
        if self._scope is None and not self._has_ended:
            self._client._check_open()
            self._scope, self._taking, self._thread = anyio.CancelScope(), anyio.CancelScope(), threading.get_ident()
            self._client._works.add(self)
            spawn(self._run(self._scope, self._taking), self._end)
        while not self._results:
            if self._has_ended:
                failure, self._failure = self._failure, None
                if failure is not None:
                    raise failure
                return None
            await self._change()
        result = self._results.popleft()
        if isinstance(result, BulkResult):
            self._places.release()
        return result

    async def ended(self) -> None:
        """Wait until it has ended, after ``cancel``."""
        while not self._has_ended:
            await self._change()
        self._results.clear()

    def stop(self) -> None:
        self._stop(self._taking)

    def cancel(self) -> None:
        self._stop(self._scope)

    def _stop(self, scope: anyio.CancelScope | None) -> None:
        if scope is None:
            self._has_ended = True  # it never begins
        else:
            scope.cancel()

    def abandon(self) -> None:
        """Cancel it, if this is its thread. A garbage collector may run in any thread, and when no loop runs."""
        if self._thread == threading.get_ident() and not self._has_ended:
            with suppress(RuntimeError):
                self.cancel()

    def put(self, result: BulkResult | _Hungry) -> None:
        self._results.append(result)
        self._changed.set()

    async def _change(self) -> None:
        if self._changed.is_set():
            self._changed = anyio.Event()
        await self._changed.wait()

    # ---- in its task

    async def _run(self, scope: anyio.CancelScope, taking: anyio.CancelScope) -> None:
        try:
            with scope:
                async with anyio.create_task_group() as group:
                    try:
                        with taking:
                            await self._take_all(group)
                    finally:
                        await self._close_prompts()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # the reader raises it, because nothing awaits this task
            self._failure = self._failure or error
        finally:
            self._end()

    def _end(self) -> None:
        self._has_ended = True
        self._client._works.discard(self)
        self._changed.set()

    async def _take_all(self, group: anyio.abc.TaskGroup) -> None:
        number = 0
        while True:
            await self._places.acquire()
            try:
                prompt = await anext(self._prompts)
            except StopAsyncIteration:
                return
            except Exception as error:
                self.fail(error)
                return
            if isinstance(prompt, str):
                prompt = BulkPrompt(prompt=prompt)
            if not isinstance(cast("object", prompt), BulkPrompt):
                self.fail(TypeError(f"prompt {number} must be a string or a BulkPrompt, not {type(prompt).__name__}"))
                return
            group.start_soon(self._answer, number if prompt.key is None else prompt.key, prompt)
            number += 1

    async def _close_prompts(self) -> None:
        """Close the prompts, if they are an asynchronous generator, because nothing else does so after a break."""
        close = getattr(self._prompts, "aclose", None)
        if close is not None:
            with anyio.CancelScope(shield=True):
                await close()

    def fail(self, error: BaseException) -> None:
        """End everything because of ``error``."""
        self._failure = self._failure or error
        self.cancel()

    async def _answer(self, key: Key, prompt: BulkPrompt) -> None:
        try:
            self.put(await _Question(self, self._client, key, prompt).result(self._retries))
        except Exception as error:
            self.fail(error)
        except BaseException as error:
            # A slot or a transport can raise a cancellation that isn't ours. Without this, the prompt would be lost.
            if self._scope is not None and not self._scope.cancel_called:
                self.fail(error)
            raise


class _Question:
    """One prompt, and what has come of it so far."""

    def __init__(self, work: _Work, client: Client, key: Key, prompt: BulkPrompt) -> None:
        self._work = work
        self._client = client
        self._key = key
        self._prompt = prompt
        self._text = ""
        self._waited: float | None = None

    async def result(self, retries: int) -> BulkResult:
        """Ask until there is an answer, or until it is of no use to ask again."""
        begun_at, began = time.time(), anyio.current_time()
        tries, pause = 1, _FIRST_PAUSE
        while (error := await self._ask()) is not None and tries <= retries and _may_help(error):
            await anyio.sleep(pause)
            tries, pause = tries + 1, min(2 * pause, _LONGEST_PAUSE)
        return BulkResult(
            key=self._key,
            text=self._text,
            error=error,
            tries=tries,
            begun_at=begun_at,
            waited=self._waited,
            seconds=anyio.current_time() - began,
        )

    async def _ask(self) -> Exception | None:
        """Ask in a chat of its own. Return why that failed, or None."""
        prompt, work = self._prompt, self._work
        self._text, self._waited = "", None
        began = anyio.current_time()
        try:
            chat = self._client.chat(
                prompt.model,
                sampling=prompt.sampling,
                plugins=prompt.plugins,
                system_prompt=prompt.system_prompt,
                user_profile=prompt.user_profile,
                user_response_instructions=prompt.user_response_instructions,
            )
            answer = chat.send(prompt.prompt)
        except (TypeError, ValueError) as error:  # no server can store this prompt
            return error
        work.running[self._key] = chat
        try:
            async with chat:
                async for event in answer:
                    if isinstance(event, Token):
                        self._waited = anyio.current_time() - began
                        work.begun.add(self._key)
                        break
                async for _ in answer:
                    pass
        except _FATAL:
            raise
        except OAError as error:
            return error
        finally:
            self._text = answer.text
            work.running.pop(self._key, None)
            work.begun.discard(self._key)
        return None


def _may_help(error: Exception) -> bool:
    """Return whether it may help to ask again. The engine itself has tried each step again already."""
    match error:
        case ApiError(status=status) | HTTPStatusError(status=status):
            return status == 429 or status >= 500
        case AnswerFailed() | RemoteProtocolError() | TransportError():
            return True
        case _:
            return False


class _Asynchronous:
    """Makes an iterator asynchronous. It is no generator, because nothing would close one after a cancellation."""

    def __init__(self, iterator: Iterator[Prompt]) -> None:
        self._iterator = iterator

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Prompt:
        try:
            return next(self._iterator)
        except StopIteration:
            raise StopAsyncIteration from None
