"""Carries out intents: sends requests, reads replies, keeps the stream, writes the journal.

Each intent is carried out by a ``Flight``. It is a task of the event loop, and no child of the owner's task, so a
cancellation of the owner doesn't cancel it. This matters in two cases:

- An owner may wait in short turns, for example by ``wait_for(anext(stream), 0.2)``. Even if a server's replies take
  longer than that, the owner gets an answer, because the next turn finds the exchange still going on, or done.
- A chat's id is only in the reply to its create. So a create goes on while its owner leaves.

Closing a conversation waits for its flight, or drops it, so no task is left behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never, cast

import anyio

from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.replies import MAX_BODY
from oa_protocol.client._background import spawn
from oa_protocol.client._content_coding import decoded
from oa_protocol.client._pending_slot import PendingSlot
from oa_protocol.client.journal import Entry, Journal
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import MaybeSent, NotSent, TransportError
from oa_protocol.engine.inputs import (
    CredentialsFound,
    ExchangeFailed,
    Input,
    ReplyReceived,
    StreamEnded,
    StreamOpened,
)
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    Exchange,
    HttpRequest,
    Intent,
    LoadCredentials,
    OpenStream,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.transports import Response, Transport, TransportFactory

if TYPE_CHECKING:
    from oa_protocol.client._accounts import Accounts

logger = logging.getLogger("oa_protocol")
"""At level DEBUG it logs every phase, intent and reply, but no secrets and no tokens."""


def log(message: str, *arguments: object) -> None:
    """Log a message at level DEBUG. An error in a log handler must not interrupt a conversation."""
    with suppress(Exception):
        logger.debug(message, *arguments)


CLOSE_TIMEOUT = 0.25
"""How many seconds closing something may take, because cleaning up must not wait for a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the conversations of one client share."""

    open_transport: TransportFactory
    load_credentials: Callable[[], Awaitable[Credentials | None]]
    timeouts: Timeouts
    cleanup: Cleanup
    slot: PendingSlot
    accounts: Accounts
    journal: Journal | None


class Flight:
    """An intent that is being carried out.

    Attributes:
        intent: that intent.
        has_landed: whether what happened was handed in. Only the journal may still be written.
        done: set when that is over, too.
        reply: is closed after that, or None.
        ended: set when everything is over.
        error: what it raised, or None.

    """

    __slots__ = ("_ends_by", "_hand_in", "_scope", "done", "ended", "error", "has_landed", "intent", "reply")

    def __init__(self, intent: Intent, hand_in: Callable[[Intent, Input], None]) -> None:
        self.intent = intent
        self.has_landed = False
        self.done = anyio.Event()
        self.reply: Response | None = None
        self.ended = anyio.Event()
        self.error: BaseException | None = None
        self._scope = anyio.CancelScope()
        self._ends_by: float | None = None
        self._hand_in = hand_in

    def land(self, happened: Input) -> None:
        """Hand in what happened."""
        self.has_landed = True
        self._hand_in(self.intent, happened)

    async def end(self) -> bool:
        """Wait until it has ended, even if the caller is cancelled, but not for long. Return whether it has.

        A caller who is interrupted may call this again, and doesn't wait longer because of that.
        """
        self._ends_by = self._ends_by or anyio.current_time() + CLOSE_TIMEOUT
        with anyio.CancelScope(deadline=self._ends_by, shield=True):
            await self.ended.wait()
        return self.ended.is_set()

    async def drop(self) -> bool:
        """Cancel it, and return whether it has ended. A transport that ignores cancellation may hold it up."""
        self._scope.cancel()
        return await self.end()

    async def run(self, operation: Callable[[Flight], Awaitable[None]]) -> None:
        """Run ``operation``, close the reply, and keep what is raised."""
        try:
            with self._scope:
                await operation(self)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            # The owner raises it, because nothing awaits this task. A GeneratorExit that is raised there would look as
            # if the owner's generator were closed.
            self.error = RuntimeError("GeneratorExit") if isinstance(error, GeneratorExit) else error
        finally:
            self.done.set()
            if self.reply is not None:
                with anyio.move_on_after(CLOSE_TIMEOUT):
                    self.error = await _closed(self.reply) or self.error
            self.ended.set()

    def note_end(self) -> None:
        """Note that its task has ended. The task itself can't, if it was cancelled before it began."""
        self.done.set()
        self.ended.set()


class Carrier:
    """What one conversation has on the network: a transport, and at times a stream and an exchange in flight.

    Attributes:
        flight: what is in flight, or None.

    """

    def __init__(self, shared: Shared, phase: Phase) -> None:
        self._shared = shared
        self._entry = Entry(shared.journal) if shared.journal is not None else None
        self._transport: Transport | None = None
        self._used_up: list[Transport] = []
        self._response: Response | None = None
        self._phase = phase
        self.flight: Flight | None = None

    def note(self, conversation: Conversation) -> None:
        """Update the pending slot, and log a change of the phase."""
        self._shared.slot.note(conversation)
        phase = conversation.phase
        if phase is not self._phase:
            log("%s -> %s", self._phase.name, phase.name)
            self._phase = phase

    def begin(self, intent: Intent, conversation: Conversation, hand_in: Callable[[Intent, Input], None]) -> None:
        """Begin to carry out ``intent``. Its outcome is passed to ``hand_in`` as soon as it is known."""
        flight = self.flight = Flight(intent, hand_in)

        async def carry_out(flight: Flight) -> None:
            _log(intent)
            match intent:
                case CreateChat():
                    await self._create(intent, flight, conversation)
                case Exchange():
                    await self._exchange(intent, flight)
                case LoadCredentials():
                    await self._load(flight)
                case CloseStream():
                    await self.close_stream()
                    flight.land(StreamEnded())
                case _:
                    assert_never(intent)

        spawn(flight.run(carry_out), flight.note_end)

    async def drop_flight(self) -> None:
        """Cancel what is in flight. If it doesn't end in time, its transport is stuck, and another one is used."""
        flight, self.flight = self.flight, None
        if flight is not None and not await flight.drop():
            self.change_transport()

    def change_transport(self) -> None:
        """Use another transport from now on, so that nothing that is under way can hold up a DELETE."""
        if self._transport is not None:
            self._used_up.append(self._transport)
        self._transport = None

    async def receive(self, until_deadline: AbstractContextManager[object, bool]) -> bytes | None:
        """Read what the stream has. Return ``b""`` at its end, however it ended, and None if the deadline came first.

        If a read is cancelled, the next one returns its bytes, or the stream is broken.
        """
        response = cast("Response", self._response)
        try:
            with until_deadline:
                data = await response.receive()
                if not data:
                    log("<- the stream ended")
                return data
        except TransportError as failure:
            log("<- the stream broke: %s", failure)
            return b""
        except asyncio.CancelledError as error:
            # Some libraries raise it themselves when they lose a connection. Then this task was not cancelled, and
            # raising it here would end the owner's task for no reason.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            log("<- the stream broke: %r, though the task was not cancelled", error)
            return b""
        return None

    async def close_stream(self) -> None:
        """Close the stream, if one is open."""
        response, self._response = self._response, None
        if response is not None:
            await close_quietly(response)

    async def close(self) -> None:
        """Close everything. If closing one thing is interrupted, the others are still closed."""
        self.change_transport()
        async with AsyncExitStack() as stack:  # it calls them in reverse order
            for transport in self._used_up:  # each closes its open replies, too, so the stream needn't be closed
                stack.push_async_callback(close_quietly, transport)
            stack.push_async_callback(self.drop_flight)

    @property
    def is_in_journal(self) -> bool:
        """Whether the journal has the chat's id."""
        return self._entry is not None and self._entry.has_chat

    async def note_kept(self) -> None:
        """Cross the chat out of the journal, so that no sweep deletes it. Raises JournalError."""
        if self._entry is not None:
            await self._entry.kept()

    async def note_gone(self) -> None:
        """Cross the chat out of the journal."""
        if self._entry is not None:
            await self._entry.gone()

    # ---- in flight

    async def _create(self, create: CreateChat, flight: Flight, conversation: Conversation) -> None:
        """Create the chat. If there is a journal, write the chat down before the request is sent."""
        leaked = len(conversation.leaked)
        if self._entry is not None:
            try:
                account = await self._shared.accounts.name(conversation.binding, conversation.credentials)
                await self._entry.creating(conversation.binding, account)
            except BaseException as error:
                # Otherwise a failing journal would look like a create that may have made a chat.
                flight.land(ExchangeFailed(NotSent(f"{type(error).__name__} before it was sent")))
                raise
        try:
            await self._exchange(create, flight)
        finally:
            if self._entry is not None:
                is_unclear, is_kept = len(conversation.leaked) > leaked, conversation.is_kept
                await self._entry.settled(conversation.chat_id, is_unclear=is_unclear, is_kept=is_kept)

    async def _exchange(self, exchange: Exchange, flight: Flight) -> None:
        response: Response | None = None
        kind: type[TransportError] = NotSent
        try:
            transport = self._transport = self._transport or self._shared.open_transport()
            kind = MaybeSent  # from here on, any other error leaves open whether it was sent
            response = await transport.open(exchange.request)
            response = decoded(response)
            if isinstance(exchange, OpenStream) and response.status == 200:
                # The response stays open for ``receive``, so the ``finally`` below must not close it.
                self._response, response = response, None
                log("<- 200, a stream")
                flight.land(StreamOpened())
                return
            body = await read_body(response)
            log("<- %d, %d bytes", response.status, len(body))
            flight.land(ReplyReceived(response.status, response.headers, body))
        except TransportError as error:
            log("<- %s", error)
            # If a reply has begun, the request was sent, even if the transport says NotSent.
            flight.land(ExchangeFailed(MaybeSent(str(error)) if response is not None else error))
        except BaseException as error:
            flight.land(ExchangeFailed(kind(f"{type(error).__name__} while it was under way")))
            raise
        finally:
            flight.reply = response

    async def _load(self, flight: Flight) -> None:
        found = None
        try:
            found = await self._shared.load_credentials()
        finally:  # if loading fails, the engine goes on without credentials, and the owner gets the error
            flight.land(CredentialsFound(found))


def _log(intent: Intent) -> None:
    if isinstance(intent, Exchange):
        log("-> %s: %s %s", type(intent).__name__, intent.request.method, intent.request.url)
    else:
        log("-> %s", type(intent).__name__)


def clock() -> Callable[[], float]:
    """Return the running event loop's clock. It is read for each token.

    anyio's clock is the same, but slower, because it looks for the running loop each time.
    """
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        return asyncio.get_running_loop().time
    return anyio.current_time


async def fetch(
    open_transport: TransportFactory, request: HttpRequest, seconds: float, *, most: int = MAX_BODY
) -> tuple[int, Sequence[tuple[str, str]], bytes]:
    """Send one request that belongs to no conversation, over its own transport.

    Returns:
        The reply's status, header fields and body.

    Raises:
        NotSent: the request certainly didn't leave.
        MaybeSent: the network failed, or there was no reply within ``seconds``.

    """
    transport = open_transport()
    try:
        with anyio.move_on_after(seconds):
            response = await transport.open(request)
            try:
                response = decoded(response)
                return response.status, response.headers, await read_body(response, most)
            finally:
                await close_quietly(response)
        raise MaybeSent(f"no reply within {seconds:g} s")
    finally:
        await close_quietly(transport)


async def read_body(response: Response, most: int = MAX_BODY) -> bytes:
    """Read a reply's body to its end, or until it is larger than any valid one, which has at most ``most`` bytes."""
    body = bytearray()
    while len(body) <= most and (data := await response.receive()):
        body += data
    return bytes(body)


async def close_quietly(resource: Response | Transport) -> None:
    """Close it, even when cancelled. Errors are ignored, because it may already be broken; an interruption is raised.

    Closing runs in its own task, which is cancelled after ``CLOSE_TIMEOUT``, but not waited for. Some libraries
    wait for the server's TLS close notice under a shield of their own, and can't be cancelled there.
    """
    done, scope = anyio.Event(), anyio.CancelScope()
    interruption: BaseException | None = None

    async def close() -> None:
        nonlocal interruption
        with scope:
            interruption = await _closed(resource)
        done.set()

    spawn(close(), done.set)
    with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
        await done.wait()
    if not done.is_set():
        scope.cancel()
    if interruption is not None:
        raise interruption


async def _closed(resource: Response | Transport) -> BaseException | None:
    """Close it, and return what interrupted this. Nothing else is raised, because this runs in a task of the loop."""
    try:
        await resource.aclose()
    except (KeyboardInterrupt, SystemExit) as error:
        return error
    except BaseException:  # noqa: S110  # nothing may leave a task of the event loop itself
        pass
    return None
