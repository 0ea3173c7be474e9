"""A simulation whose exchanges go through a real transport, to the models of network and server at its far end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeVar

from oa_protocol.engine.errors import MaybeSent, TransportError
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing._fields import ADDED, changed_fields
from oa_protocol.testing._model.ledger import FarReply
from oa_protocol.testing._model.network import Effect, Fate
from oa_protocol.testing._model.server import read_request
from oa_protocol.testing._model.simulation import Simulation
from oa_protocol.testing._model.trace import TransportFault
from oa_protocol.transports import Response, Transport

__tracebackhide__ = True  # pytest leaves the frames of this module out of its tracebacks.

_T = TypeVar("_T")


class Run(Protocol):
    """Runs a coroutine to its end, as ``asyncio.Runner.run`` does."""

    def __call__(self, awaitable: Coroutine[Any, Any, _T], /) -> _T:
        """Return what the coroutine returns, or raise what it raises."""
        ...


_FIRST_BYTES = b'{"id":'
"""What arrives of a reply that breaks off."""

Answer = Callable[[HttpRequest], FarReply | TransportError | None]


class _Due(NamedTuple):
    """The request that must arrive next, how to answer it, and what becomes of the reply."""

    request: HttpRequest
    answer: Answer
    opens_stream: bool
    breaks_off: bool


class FarResponse:
    """A reply at the far end. If it is a stream, only the bytes that have arrived so far can be received."""

    def __init__(self, far_end: FarEnd, reply: FarReply, *, is_open: bool = False, is_broken: bool = False) -> None:
        self.status = reply.status
        self.headers: Sequence[tuple[str, str]] = reply.headers
        self.arrived = deque([reply.body] if reply.body else [])
        self.is_open = is_open
        self.is_broken = is_broken
        self._far_end = far_end

    async def receive(self) -> bytes:
        """Return the next bytes, or ``b""`` at the end.

        Raises:
            MaybeSent: the reply broke off.
            TransportFault: no more bytes have arrived, so a transport that asks for more holds bytes back.

        """
        if self.arrived:
            return self.arrived.popleft()
        if self.is_open:
            raise self._far_end.wrong("the transport asks for more of the stream, and holds back what has arrived")
        if self.is_broken:
            raise MaybeSent("the reply breaks off")
        return b""

    async def aclose(self) -> None:
        """Do nothing, because there is nothing to close."""


class FarEnd:
    """The transport below the one that is tested. It answers each request as the simulation says.

    ``problem`` is the first thing that the tested transport did wrong. It is stored, because a transport may catch the
    errors that are raised here.
    """

    def __init__(self) -> None:
        self.problem = ""
        self.hangs = asyncio.Event()
        self.outcome: FarReply | TransportError | None = None
        self.stream: FarResponse | None = None
        self._due: _Due | None = None

    def expect(self, request: HttpRequest, answer: Answer, *, opens_stream: bool, breaks_off: bool) -> None:
        """Expect ``request`` next, and nothing else.

        Args:
            request: the request.
            answer: returns the outcome of the request.
            opens_stream: true if the body of a reply with status 200 is a stream.
            breaks_off: true if a failure comes only after the head of the reply.

        """
        self.outcome = None
        self.hangs.clear()
        self._due = _Due(request, answer, opens_stream, breaks_off)

    def wrong(self, problem: str) -> TransportFault:
        """Store what the transport did wrong, and return it as an error."""
        self.problem = self.problem or problem
        return TransportFault(problem)

    async def open(self, request: HttpRequest) -> FarResponse:
        """Return the model's reply, or raise its failure.

        Raises:
            TransportFault: the request isn't the one that the engine sent, or it is a second one. Only the engine knows
                whether a request may be sent again.

        """
        due, self._due = self._due, None
        if due is None:
            raise self.wrong("the transport sends a request of its own accord")
        if change := _change(_parts_of_request(due.request), _parts_of_request(request)):
            raise self.wrong(f"the transport changed the request: {change}")
        outcome = self.outcome = due.answer(request)
        if outcome is None:
            self.hangs.set()
            await asyncio.Event().wait()  # This waits until ``open`` is cancelled.
            raise TransportFault("nothing comes back")
        if isinstance(outcome, FarReply):
            response = FarResponse(self, outcome, is_open=due.opens_stream and outcome.status == 200)
            self.stream = response if response.is_open else self.stream
            return response
        if due.breaks_off:
            return FarResponse(self, FarReply(200, (), _FIRST_BYTES), is_broken=True)
        raise outcome

    async def aclose(self) -> None:
        """Do nothing, because there are no connections."""


class TransportedSimulation(Simulation):
    """A simulation with one conversation, whose requests, replies and stream go through a transport.

    It raises ``TransportFault`` if the transport does something wrong.
    """

    __slots__ = ("_far_end", "_remark", "_response", "_run", "_transport")

    stream_ends = (*Simulation.stream_ends, "breaks the stream")
    is_slow = True

    def connect(self, make_transport: Callable[[Transport], Transport], run: Run) -> None:
        """Send everything from now on through the transport that ``make_transport`` returns."""
        far_end = FarEnd()

        async def make() -> Transport:
            return make_transport(far_end)

        self._run = run
        self._remark = ""
        self._far_end = far_end
        self._transport = run(make())

    def disconnect(self) -> None:
        """Close the transport. Its errors are passed on."""
        self._run(self._transport.aclose())

    def send(self, request: HttpRequest, number: int, fate: Fate) -> FarReply | TransportError | None:
        """Send ``request`` through the transport. If the request hangs, cancel ``open``, as a driver would."""
        self._remark = ""
        opens_stream = read_request(request).step == "events"
        breaks_off = fate.effect is Effect.DONE and not opens_stream and not fate.hangs
        self._far_end.expect(
            request,
            lambda arrived: self.answer(arrived, number, fate),
            opens_stream=opens_stream,
            breaks_off=breaks_off,
        )
        if fate.hangs:
            self._ask(self._hang_through(request))
            return None
        outcome = self._ask(self._exchange_through(request, opens_stream=opens_stream))
        far = self._far_end.outcome
        if far is None:
            raise TransportFault("the transport did not send the request")
        if isinstance(far, TransportError) and isinstance(outcome, FarReply) and breaks_off:
            raise TransportFault(
                f"the reply broke off after {len(_FIRST_BYTES)} bytes, and the transport reported a clean end"
            )
        if change := _change_of_outcome(far, outcome):
            raise TransportFault(f"the transport changed the reply: {change}")
        if isinstance(outcome, TransportError) and type(outcome) is not type(far):
            self._remark = f" (the transport says {type(outcome).__name__})"
        return outcome

    async def _exchange_through(self, request: HttpRequest, *, opens_stream: bool) -> FarReply | TransportError:
        try:
            response = await self._transport.open(request)
            if opens_stream and response.status == 200:
                self._response: Response = response
                return FarReply(200, tuple(response.headers), b"")
            try:
                return FarReply(response.status, tuple(response.headers), await _body(response))
            finally:
                await response.aclose()
        except TransportError as failure:
            return failure

    async def _hang_through(self, request: HttpRequest) -> None:
        opening = asyncio.ensure_future(self._transport.open(request))
        hanging = asyncio.ensure_future(self._far_end.hangs.wait())
        await asyncio.wait((opening, hanging), return_when=asyncio.FIRST_COMPLETED)
        if not hanging.done():
            hanging.cancel()
            instead = opening.exception() or opening.result()
            raise TransportFault(f"the transport did not send the request, or did not wait for its reply: {instead!r}")
        opening.cancel()
        with suppress(asyncio.CancelledError, TransportError):
            await opening

    def remark(self) -> str:
        """Return which other failure the transport made of the last exchange's, in words, or an empty text."""
        return self._remark

    def stream(self, data: bytes) -> list[bytes]:
        """Let bytes arrive at the far end, and return the pieces that the transport hands on."""
        self._far_stream.arrived.append(data)
        pieces: list[bytes] = []
        while len(b"".join(pieces)) < len(data):
            pieces.append(self._ask(self._next_piece()))
            if not data.startswith(b"".join(pieces)):
                raise TransportFault(f"the transport changed the reply: of {data!r} it made {b''.join(pieces)!r}")
        return pieces

    async def _next_piece(self) -> bytes:
        try:
            piece = await self._response.receive()
        except TransportError as failure:
            raise TransportFault(f"the transport breaks off a stream that goes on: {failure!r}") from failure
        if not piece:
            raise TransportFault("the transport ends a stream that goes on")
        return piece

    def end_stream(self, how: str) -> None:
        """End or break the stream, and check that the transport reports it, or let the driver close the stream."""
        if how != "closes the stream":
            self._far_stream.is_open = False
            self._far_stream.is_broken = how == "breaks the stream"
        self._ask(self._end_through(how))

    async def _end_through(self, how: str) -> None:
        try:
            if how != "closes the stream":
                if more := await _body(self._response):
                    raise TransportFault(
                        f"the transport changed the reply: after the stream's end it hands on {more!r}"
                    )
                if how == "breaks the stream":
                    raise TransportFault("the transport ends a stream cleanly that broke off")
        except TransportError as failure:
            if how != "breaks the stream":
                raise TransportFault(f"the transport breaks off a stream that ended cleanly: {failure!r}") from failure
        await self._response.aclose()

    @property
    def _far_stream(self) -> FarResponse:
        stream = self._far_end.stream
        assert stream is not None  # This is called only while a stream is open.
        return stream

    def _ask(self, awaitable: Coroutine[Any, Any, _T]) -> _T:
        """Run a call of the transport.

        Raises:
            TransportFault: the transport did something wrong, even if it caught the error of the far end.

        """
        try:
            answer = self._run(awaitable)
        except Exception as error:
            reason = str(error) if isinstance(error, TransportFault) else f"it raises {type(error).__name__}: {error}"
            raise TransportFault(self._far_end.problem or reason) from error
        if self._far_end.problem:
            raise TransportFault(self._far_end.problem)
        return answer


# ---- what a transport mustn't change


async def _body(response: Response) -> bytes:
    """Return the whole body, and check that nothing follows its end.

    Raises:
        MaybeSent: the body broke off.
        TransportFault: ``receive`` returned something after the end of the body, or after the break.

    """
    pieces: list[bytes] = []
    try:
        while piece := await response.receive():
            pieces.append(piece)
    except TransportError:
        with suppress(TransportError):
            piece = await response.receive()
            raise TransportFault(f"the transport goes on after a reply broke off, with {piece!r}") from None
        raise
    if await response.receive():
        raise TransportFault("the transport goes on after a reply's end")
    return b"".join(pieces)


def _parts_of_request(request: HttpRequest) -> dict[str, object]:
    fields = [(name, value) for name, value in request.headers if name.lower() not in ADDED]
    return {"method": request.method, "URL": request.url, "headers": fields, "body": request.body}


def _parts_of_reply(reply: FarReply) -> dict[str, object]:
    return {"status": reply.status, "headers": reply.headers, "body": reply.body}


def _change(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return which part has changed, in words, or an empty text."""
    for part, value in before.items():
        if part == "headers":
            if change := changed_fields(value, after[part]):
                return change
        elif after[part] != value:
            return f"its {part} was {value!r}, and became {after[part]!r}"
    return ""


def _change_of_outcome(before: FarReply | TransportError, after: FarReply | TransportError) -> str:
    """Return how an outcome has changed, in words, or an empty text.

    Two failures aren't compared. If the transport raises the wrong one, the engine breaks an invariant.
    """
    if isinstance(before, FarReply) and isinstance(after, FarReply):
        return _change(_parts_of_reply(before), _parts_of_reply(after))
    if isinstance(before, TransportError) and isinstance(after, TransportError):
        return ""
    return f"it was {before!r}, and became {after!r}"
