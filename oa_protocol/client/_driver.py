"""Carries out what a conversation asks for, on anyio: it owns the deadlines, and nothing stops it from cleaning up."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from typing import assert_never, cast

import anyio
from anyio import to_thread

from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.replies import MAX_BODY
from oa_protocol.client._pending_slot import Gate
from oa_protocol.client._read_timeout import ReadScope, read_scope
from oa_protocol.client._shield import finalize
from oa_protocol.client.journal import Journal
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import LocalProtocolError, MaybeSent, NotSent, TransportError
from oa_protocol.engine.events import Event
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    Exchange,
    FetchMessage,
    HttpRequest,
    Intent,
    LoadCookies,
    OpenStream,
    RequestAssistant,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.transports import Response, Transport, TransportFactory

logger = logging.getLogger("oa_protocol")
"""At level DEBUG it tells every phase, intent and reply; never a secret, never a token."""

_JITTER = 0.25
_CLOSE_TIMEOUT = 0.25
# Cleaning up keeps its own deadline; this much later it is stopped from outside.
_LAST_RESORT = 0.9

_ANSWER_RUNS = (Phase.ASSISTANT_REQUESTED, Phase.STREAMING, Phase.POLLING)


def _check_seconds(settings: Timeouts | Cleanup, *, optional: str = "") -> None:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value is None and field.name == optional:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{field.name} must be a number, not {value!r}")
        if not value >= 0:
            raise ValueError(f"{field.name} must not be negative: {value!r}")


def check_count(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number from ``least`` up, with a TypeError or ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}: {value!r}")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds of wall time.

    ``connect``: for a connection. ``reply``: for a whole reply, or a stream's head. ``idle``: for any byte of a stream;
    servers send a ping every 15 s. ``poll``: for an answer whose stream was lost. ``answer``: for an answer at all;
    None is for ever, as a message that merely waits may still get its worker.
    """

    connect: float = 10.0
    reply: float = 30.0
    idle: float = 45.0
    poll: float = 300.0
    answer: float | None = None

    def __post_init__(self) -> None:
        _check_seconds(self, optional="answer")


@dataclass(frozen=True, slots=True)
class Cleanup:
    """How a chat is cleaned up.

    ``drain``: seconds to wait for an answer that may be running, since deleting its chat breaks other users' answers;
    0 deletes at once. ``timeout``: seconds for waiting for a create, draining and deleting together; of these one
    attempt to delete has its share, however long the others take. ``attempts``: how many DELETEs at most.
    """

    drain: float = 5.0
    timeout: float = 10.0
    attempts: int = 3

    def __post_init__(self) -> None:
        _check_seconds(self)
        check_count("attempts", self.attempts, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the drivers of one client share."""

    open_transport: TransportFactory
    load_credentials: Callable[[], Awaitable[Credentials | None]]
    timeouts: Timeouts
    cleanup: Cleanup
    gate: Gate
    journal: Journal | None


class Driver:
    """Drives one conversation. One task at a time may call ``step``; any task may call ``aclose``."""

    def __init__(self, conversation: Conversation, shared: Shared) -> None:
        self.conversation = conversation
        self._open_transport = shared.open_transport
        self._load_credentials = shared.load_credentials
        self._timeouts = shared.timeouts
        self._cleanup = shared.cleanup
        self._gate = shared.gate
        self._journal = shared.journal
        self._line: int | None = None
        self._transport: Transport | None = None
        self._cleanup_transport: Transport | None = None
        # What was interrupted before it was sent, and when it is due: the next step goes on with it.
        self._put_off: Exchange | None = None
        self._due = 0.0
        self._response: Response | None = None
        self._read_scope: ReadScope | None = None
        self._active: anyio.CancelScope | ReadScope | None = None
        self._released: anyio.Event | None = None
        self._over: anyio.Event | None = None
        self._phase = conversation.phase
        self._phase_since = 0.0
        self._answer_since: float | None = None
        self._cleanup_ends: float | None = None
        self._cleanup_left = self._cleanup.timeout
        # What came of a step that was interrupted after it: the next step tells it.
        self._untold: list[Event] = []

    @property
    def is_closed(self) -> bool:
        """Whether ``aclose`` was called."""
        return self._over is not None

    async def step(self) -> list[Event] | None:
        """Do one thing: carry out an intent, or read what the stream has. Return its events, or None if none is left.

        Raises LocalProtocolError where another task is in here, or where the conversation is closed meanwhile.
        """
        if self.is_closed or self._active is not None:
            why = "is closed" if self.is_closed else "is in use by another task"
            raise LocalProtocolError(f"the chat {why} (phase {self._phase.name})", phase=self._phase.name)
        self._cleanup_ends, self._cleanup_left = None, self._cleanup.timeout
        if self._untold:
            return self._tell()
        intent = self._put_off or self.conversation.next_intent()
        patience = self._patience_ends()
        try:
            if intent is None and self.conversation.has_stream:
                events = await self._read_stream(patience)
                if events is not None:
                    return events
            else:
                with anyio.CancelScope(deadline=patience) as self._active:
                    return await self._carry_out(intent)
        finally:
            self._active = None
            if self._released is not None:
                self._released.set()
            self._gate.note(self.conversation)
            self._note_phase()
        if self.is_closed:
            raise LocalProtocolError("the chat was closed while it was in use", phase=self._phase.name)
        if anyio.current_time() >= patience and self._phase in _ANSWER_RUNS:
            return [*self._tell(), *self._patience_is_over()]
        return self._tell()

    async def aclose(self) -> None:
        """End the conversation: its chat is deleted, or named in ``conversation.records``.

        May be called again, also while another task is at it; then it waits for the end of that. Raises what
        interrupted it, afterwards.
        """
        if self._over is None:
            end, self._over = self._clean_up, anyio.Event()
            self._gate.leave(self.conversation)
            if self._active is not None:
                self._released = anyio.Event()
                self._active.cancel()
        else:
            end = self._over.wait
        try:
            await finalize(end, deadline=lambda: self._cleanup_deadline() + _LAST_RESORT, at_once=True)
        finally:
            self.conversation.abandon()
            self._note_phase()
            self._over.set()

    # ---- intents

    async def _carry_out(self, intent: Intent | None) -> list[Event] | None:
        match intent:
            case Exchange():
                return await self._exchange(intent)
            case LoadCookies():
                return await self._load()
            case CloseStream():
                return await self._end_stream()
            case None:
                return None
            case _:
                assert_never(intent)

    async def _exchange(self, exchange: Exchange) -> list[Event]:
        if self._put_off is None:
            self._put_off, self._due = exchange, anyio.current_time() + _stretched(exchange.delay)
        with self._before_sending():
            transport = self._transport = self._transport or self._open_transport()
            await anyio.sleep_until(self._due)
            if isinstance(exchange, RequestAssistant):
                await self._gate.enter(self.conversation)
        self._put_off = None
        if not isinstance(exchange, CreateChat):
            await self._send(exchange, transport, self._timeouts.reply)
            return self._tell()
        records = len(self.conversation.records)

        async def create() -> None:
            if self.conversation.outstanding is exchange:
                with self._before_sending():
                    await self._note_creating()
                try:
                    await self._send(exchange, transport, self._timeouts.reply)
                finally:
                    await self._note_created(unclear=len(self.conversation.records) > records)

        try:
            await finalize(create, deadline=self._cleanup_deadline, at_once=False)
        finally:
            self._stop_cleanup_clock()
        return self._tell()

    def _tell(self) -> list[Event]:
        events, self._untold = self._untold, []
        return events

    @contextmanager
    def _before_sending(self) -> Generator[None]:
        """What goes wrong in here leaves the outstanding exchange unsent; an interruption may put it off."""
        try:
            yield
        except BaseException as error:
            if self._put_off is None or isinstance(error, Exception):
                self._not_sent(f"{type(error).__name__} before it was sent")
            raise

    def _not_sent(self, why: str) -> None:
        self._put_off = None
        self.conversation.receive_failure(NotSent(why))

    async def _send(self, exchange: Exchange, transport: Transport, allowed: float) -> None:
        """Send the request and hand in what comes of it; an interrupted exchange is handed in as maybe sent.

        Letting go of the reply may be interrupted as well: what is to be told waits in ``_untold``.
        """
        logger.debug("-> %s: %s %s", type(exchange).__name__, exchange.request.method, exchange.request.url)
        response: Response | None = None
        try:
            with anyio.move_on_after(allowed):
                response = await transport.open(exchange.request)
                if isinstance(exchange, OpenStream) and response.status == 200:
                    self._response, response = response, None
                    self._read_scope = read_scope()
                    logger.debug("<- 200, a stream")
                    self._untold = self.conversation.receive_stream_opened()
                    return
                body = await _read_body(response)
                logger.debug("<- %d, %d bytes", response.status, len(body))
                self._untold = self.conversation.receive_reply(response.status, response.headers, body)
                return
            raise MaybeSent(f"no reply within {allowed:g} s")
        except TransportError as failure:
            logger.debug("<- %s", failure)
            # Once a reply has begun, the request was sent, whatever a transport says.
            failure = MaybeSent(str(failure)) if response is not None else failure
            self._untold = self.conversation.receive_failure(failure)
        except BaseException as error:
            if isinstance(exchange, FetchMessage) and not isinstance(error, Exception) and not self.is_closed:
                self._put_off, self._due = exchange, 0.0  # a read does no harm if it is sent again
            else:
                self.conversation.receive_failure(MaybeSent(f"{type(error).__name__} while it was under way"))
            raise
        finally:
            if response is not None:
                await _let_go(response)

    async def _load(self) -> list[Event]:
        logger.debug("-> LoadCookies")
        credentials = None
        try:
            credentials = await self._load_credentials()
        finally:
            events = self.conversation.receive_cookies(credentials)
        return events

    async def _read_stream(self, patience: float) -> list[Event] | None:
        """Hand in what the stream has; return None where it was silent for too long, or until ``patience``."""
        response, scope = cast("Response", self._response), cast("ReadScope", self._read_scope)
        self._active, data = scope, None
        try:
            with scope.within(self._timeouts.idle, patience):
                data = await response.receive()
        except TransportError as failure:
            logger.debug("<- the stream broke: %s", failure)
            return await self._end_stream()
        except BaseException:
            # Some transports cannot go on with a body once a read of it was interrupted.
            await self._end_stream()
            raise
        if data:
            return self.conversation.receive_stream_data(data)
        events = await self._end_stream()
        if data is None:
            return None
        logger.debug("<- the stream ended")
        return events

    async def _end_stream(self) -> list[Event]:
        events = self.conversation.receive_stream_end()
        response, self._response = self._response, None
        cast("ReadScope", self._read_scope).close()
        await _let_go(cast("Response", response))
        return events

    # ---- the journal

    async def _note_creating(self) -> None:
        """Write down that a chat may be made, before it can be. Without that it is not made."""
        journal, conversation = self._journal, self.conversation
        if journal is not None:
            self._line = await to_thread.run_sync(journal.creating, conversation.binding, conversation.credentials)

    async def _note_created(self, *, unclear: bool) -> None:
        """Write down what became of it, whatever happens around."""
        journal, line, conversation = self._journal, self._line, self.conversation
        if journal is None or line is None:
            return
        with anyio.CancelScope(shield=True):
            if conversation.chat_id is not None:
                await to_thread.run_sync(journal.created, line, conversation.chat_id)
            elif unclear:
                await to_thread.run_sync(journal.unclear, line)
            else:
                await to_thread.run_sync(journal.gone, line)

    async def _note_gone(self) -> None:
        """Cross the chat out, if it is gone. A line too many does no harm: a sweep finds no chat, and drops it."""
        journal, line, conversation = self._journal, self._line, self.conversation
        if journal is None or line is None or not conversation.is_chat_gone:
            return
        try:
            await to_thread.run_sync(journal.gone, line)
        except Exception as error:
            logger.warning("cannot cross the chat out in the journal %s: %s", journal.path, error)

    # ---- deadlines

    def _patience_ends(self) -> float:
        if self._phase not in _ANSWER_RUNS:
            return math.inf
        ends = math.inf
        if self._phase is Phase.POLLING:
            ends = self._phase_since + self._timeouts.poll
        if self._timeouts.answer is not None and self._answer_since is not None:
            ends = min(ends, self._answer_since + self._timeouts.answer)
        return ends

    def _patience_is_over(self) -> list[Event]:
        events = self.conversation.answer_timed_out()
        if self._put_off is not None:
            self._not_sent("the time for the answer was over")
        self._gate.note(self.conversation)
        self._note_phase()
        return events

    def _note_phase(self) -> None:
        phase = self.conversation.phase
        if phase is self._phase:
            return
        logger.debug("%s -> %s", self._phase.name, phase.name)
        self._phase = phase
        self._phase_since = anyio.current_time()
        if phase not in _ANSWER_RUNS:
            self._answer_since = None
        elif self._answer_since is None:
            self._answer_since = self._phase_since

    # ---- cleanup

    def _cleanup_deadline(self) -> float:
        """When cleaning up must be done: its time begins with the first interruption, or with ``aclose``."""
        if self._cleanup_ends is None:
            self._cleanup_ends = anyio.current_time() + self._cleanup_left
        return self._cleanup_ends

    def _stop_cleanup_clock(self) -> None:
        """An interrupted create is settled: the time goes on when the owner leaves, and one attempt has its share."""
        if self._cleanup_ends is not None:
            self._cleanup_left = max(self._cleanup_ends - anyio.current_time(), self._share())
            self._cleanup_ends = None

    async def _clean_up(self) -> None:
        """Go on from wherever the conversation stands until it is over; called again, go on."""
        conversation = self.conversation
        try:
            if self._released is not None:
                await self._released.wait()
            if self._put_off is not None:
                self._not_sent("the owner left")
            ends = self._cleanup_deadline()
            # However long draining may take, an attempt to delete has its share of the time.
            drained = min(
                anyio.current_time() + self._cleanup.drain, ends - min(self._share(), self._cleanup.timeout / 2)
            )
            conversation.close(drain=self._cleanup.drain > 0)
            while (intent := conversation.next_intent()) is not None:
                self._note_phase()
                limit = min(drained, ends) if conversation.phase is Phase.DRAINING else ends
                with anyio.CancelScope(deadline=limit):
                    try:
                        await self._clean_up_step(intent)
                    except Exception as error:
                        # The engine knows, and goes on; whoever leaves has an exception of their own, or none.
                        logger.debug("<- %s", type(error).__name__)
                if anyio.current_time() >= ends:
                    conversation.abandon()
                elif anyio.current_time() >= drained:
                    conversation.close(drain=False)
            await self._note_gone()
        finally:
            await self._release()

    async def _clean_up_step(self, intent: Exchange | LoadCookies | CloseStream) -> None:
        match intent:
            case Exchange():
                with self._before_sending():
                    transport = self._cleanup_transport = self._cleanup_transport or self._open_transport()
                    await anyio.sleep(_stretched(intent.delay))
                await self._send(intent, transport, min(self._timeouts.reply, self._share()))
            case LoadCookies():
                await self._load()
            case CloseStream():
                await self._end_stream()
            case _:
                assert_never(intent)

    def _share(self) -> float:
        """One attempt's share of the time, so that one that hangs leaves time for the others."""
        return self._cleanup.timeout / self._cleanup.attempts

    async def _release(self) -> None:
        async with AsyncExitStack() as stack:  # an interruption costs the others nothing
            for resource in (self._cleanup_transport, self._transport, self._response):
                if resource is not None:
                    stack.push_async_callback(_let_go, resource)
            self._response = self._transport = self._cleanup_transport = None
            if self._read_scope is not None:
                self._read_scope.close()


async def fetch(
    open_transport: TransportFactory, request: HttpRequest, allowed: float
) -> tuple[int, Sequence[tuple[str, str]], bytes]:
    """Send one request that belongs to no conversation; return its reply's status, headers and body.

    ``allowed`` is in seconds. Raises NotSent or MaybeSent.
    """
    transport = open_transport()
    try:
        with anyio.move_on_after(allowed):
            response = await transport.open(request)
            try:
                return response.status, response.headers, await _read_body(response)
            finally:
                await _let_go(response)
        raise MaybeSent(f"no reply within {allowed:g} s")
    finally:
        await _let_go(transport)


def _stretched(delay: float) -> float:
    return delay * random.uniform(1.0, 1.0 + _JITTER)  # noqa: S311  # jitter is no secret


async def _read_body(response: Response) -> bytes:
    body = bytearray()
    while len(body) <= MAX_BODY and (data := await response.receive()):
        body += data
    return bytes(body)


async def _let_go(resource: Response | Transport) -> None:
    """Close it, whatever happens around; that it was broken already is no news."""
    with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True), suppress(Exception):
        await resource.aclose()
