"""Transports with a bug, and the tests of the suite that catch it: these, and no others."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
import ssl
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any, cast
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import pytest
from anyio.streams.tls import TLSStream
from msgspec.structs import replace

from oa_protocol import MaybeSent, NotSent, TransportError
from oa_protocol.engine.intents import HttpRequest
from oa_protocol.testing.conformance import TransportConformance
from oa_protocol.transports import Response, Transport
from oa_protocol.transports.blocking import BlockingExchange, BlockingTransport
from oa_protocol.transports.blocking_httpx import BlockingHttpxTransport
from oa_protocol.transports.fast import httptools
from oa_protocol.transports.fast.httptools import HttptoolsTransport
from tests.docs.transports_page import H11, HTTP_CLIENT

pytestmark = pytest.mark.once


class Reply:
    """Another transport's reply, as it is."""

    def __init__(self, inner: Response) -> None:
        self.inner = inner

    @property
    def status(self) -> int:
        return self.inner.status

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return self.inner.headers

    async def receive(self) -> bytes:
        return await self.inner.receive()

    async def aclose(self) -> None:
        await self.inner.aclose()


class Sound:
    """Another transport, as it is."""

    make_reply: Callable[[Response], Response] = Reply
    takes: Sequence[str] = ()

    def __init__(self, **options: Any) -> None:
        self.inner = HttptoolsTransport(**options)

    async def open(self, request: HttpRequest) -> Response:
        return self.make_reply(await self.inner.open(request))

    async def aclose(self) -> None:
        await self.inner.aclose()

    @property
    def connections(self) -> list[Any]:
        inner: Any = self.inner
        return cast("list[Any]", inner._connections)


class DroppingReply(Reply):
    at_start = True

    async def receive(self) -> bytes:
        data = await super().receive()
        if self.at_start or not data:
            self.at_start = False
            return data
        inner: Any = self.inner
        return b"" if inner._reply.is_complete else data


class DropsTheLastChunk(Sound):
    """What comes together with a body's end is lost, unless it is all there is."""

    make_reply = DroppingReply


class LateReply(Reply):
    at_start = True

    async def receive(self) -> bytes:
        data = await super().receive()
        if data and not self.at_start:
            data += await super().receive()
        self.at_start = False
        return data


class MergesChunksLate(Sound):
    """A chunk, but for the first, waits for the next."""

    make_reply = LateReply


class UncancelledReply(Reply):
    async def receive(self) -> bytes:
        try:
            return await super().receive()
        except asyncio.CancelledError:
            return b""


class SwallowsCancellation(Sound):
    """A cancelled receive returns."""

    make_reply = UncancelledReply


class EndingReply(Reply):
    async def receive(self) -> bytes:
        try:
            return await super().receive()
        except MaybeSent:
            return b""


class EndsWhereItBreaks(Sound):
    """A broken body looks like a whole one."""

    make_reply = EndingReply


class ForgetfulReply(Reply):
    is_broken = False

    async def receive(self) -> bytes:
        if self.is_broken:
            return b""
        try:
            return await super().receive()
        except MaybeSent:
            self.is_broken = True
            raise


class TellsABreakOnce(Sound):
    """After a body broke off, the next read reports a proper end."""

    make_reply = ForgetfulReply


class ReportsSentAsNotSent(Sound):
    """Whatever goes wrong is called not sent."""

    async def open(self, request: HttpRequest) -> Response:
        try:
            return await super().open(request)
        except MaybeSent as error:
            raise NotSent(str(error)) from error


class ReportsNotSentAsMaybeSent(Sound):
    """Whatever goes wrong may have been sent."""

    async def open(self, request: HttpRequest) -> Response:
        try:
            return await super().open(request)
        except NotSent as error:
            raise MaybeSent(str(error)) from error


class RefusesALineBreak(Sound):
    """A line break is refused with an error that is no transport's."""

    async def open(self, request: HttpRequest) -> Response:
        if not "".join((request.method, request.url, *map("".join, request.headers))).isprintable():
            raise ValueError("a line break")
        return await super().open(request)


class SendsAgain(Sound):
    """A request whose fate is unclear is sent once more."""

    async def open(self, request: HttpRequest) -> Response:
        try:
            return await super().open(request)
        except MaybeSent:
            return await super().open(request)


class HesitatingReply(Reply):
    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        await super().aclose()


class IsCancelledBeforeItCloses(Sound):
    """A close that is cancelled has closed nothing."""

    make_reply = HesitatingReply


class OpenReply(Reply):
    async def aclose(self) -> None:
        pass


class SendsAgainOnAReusedConnection(Sound):
    """A request that failed on a connection which has served before is sent once more."""

    def __init__(self) -> None:
        super().__init__()
        self.has_served = False

    async def open(self, request: HttpRequest) -> Response:
        try:
            response = await super().open(request)
        except MaybeSent:
            if not self.has_served:
                raise
            response = await super().open(request)
        self.has_served = True
        return response


class NoReply:
    """A reply that never came."""

    status = 200
    headers = ()

    async def receive(self) -> bytes:
        raise MaybeSent("there is none")

    async def aclose(self) -> None:
        pass


class TakesACutHead(Sound):
    """A head that breaks off is taken for a whole one."""

    async def open(self, request: HttpRequest) -> Response:
        try:
            return await super().open(request)
        except MaybeSent as error:
            if "closed the connection" not in str(error) or not request.url.endswith("/"):
                raise
            return NoReply()


class SendsABigBodyAgain(Sound):
    """A request of which the sending broke is sent once more."""

    async def open(self, request: HttpRequest) -> Response:
        try:
            return await super().open(request)
        except MaybeSent:
            if len(request.body) < 1_000_000:
                raise
            return await super().open(request)


class TriesAllOfItAtTheNextAddress(Sound):
    """If an exchange fails at one address of a name, it is begun again at the next."""

    async def open(self, request: HttpRequest) -> Response:
        parts = urlsplit(request.url)
        found = await anyio.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(place[0]) for *_, place in found))
        for address in addresses[:-1]:
            with suppress(TransportError):
                return await super().open(replace(request, url=request.url.replace(str(parts.hostname), address)))
        return await super().open(replace(request, url=request.url.replace(str(parts.hostname), addresses[-1])))


class SendsAgainAfterATimeOfItsOwn(Sound):
    """What is not answered in five seconds is sent once more."""

    async def open(self, request: HttpRequest) -> Response:
        with anyio.move_on_after(5):
            return await super().open(request)
        return await super().open(request)


class GivesUpAfterATimeOfItsOwn(Sound):
    """What is not answered in five seconds is given up."""

    async def open(self, request: HttpRequest) -> Response:
        with anyio.fail_after(5):
            return await super().open(request)


class CallsEveryTlsFailureNotSent(Sound):
    """Also one that comes after the handshake."""

    takes = ("ssl_context",)

    async def open(self, request: HttpRequest) -> Response:
        try:
            return await super().open(request)
        except MaybeSent as error:
            if any(isinstance(cause, ssl.SSLError) for cause in causes_of(error)):
                raise NotSent(str(error)) from error
            raise


class TakesACutForAFailedHandshake(Sound):
    """An encrypted connection that ends before the reply."""

    takes = ("ssl_context",)

    async def open(self, request: HttpRequest) -> Response:
        try:
            return await super().open(request)
        except MaybeSent as error:
            if request.url.startswith("https:") and "ssl" not in str(error).lower():
                raise NotSent(str(error)) from error
            raise


def causes_of(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


class BodilessReply(Reply):
    async def receive(self) -> bytes:
        while await super().receive():
            pass
        return b""


class IgnoresTheBodyOfADelete(Sound):
    """A DELETE that was answered with 200 is done."""

    async def open(self, request: HttpRequest) -> Response:
        response = await super().open(request)
        return BodilessReply(response) if (request.method, response.status) == ("DELETE", 200) else response


class UsesTheConnectionOfAStream(Sound):
    """A connection that is silent is taken for an idle one."""

    async def open(self, request: HttpRequest) -> Response:
        for connection in self.connections:
            if request.url.startswith(str(connection.origin)):
                connection.idle_until = math.inf
        return await super().open(request)


class ClosesAfterItsPeers(Sound):
    """The transport is closed once each peer has closed its side, too."""

    async def aclose(self) -> None:
        for connection in self.connections:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
                await connection.stream.send_eof()
                while True:
                    await connection.stream.receive()
        await super().aclose()


class SaysGoodbyeInTls(Sound):
    """The transport is closed once each peer has said goodbye in TLS."""

    takes = ("ssl_context",)

    async def aclose(self) -> None:
        for connection in self.connections:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, ssl.SSLError):
                if isinstance(connection.stream, TLSStream):
                    await connection.stream.unwrap()
        await super().aclose()


class LeftoverReply(Reply):
    async def aclose(self) -> None:
        inner: Any = self.inner
        left, stream = bytes(inner._reply._unread), inner._connection.stream
        inner._reply._unread.clear()

        async def receive() -> bytes:
            del stream.receive
            return left

        if left:
            stream.receive = receive
        await super().aclose()


class ReadsWhatIsLeft(Sound):
    """A connection is used again, whatever came with the last reply."""

    make_reply = LeftoverReply


class AsksAgainWhenRefusedForGood(Sound):
    """A refusal that closes its connection is taken for the end of an idle one."""

    async def open(self, request: HttpRequest) -> Response:
        response = await super().open(request)
        if response.status < 400 or ("connection", "close") not in response.headers:
            return response
        await response.aclose()
        return await super().open(request)


class AsksAgainWhenRefused(Sound):
    """A server that is busy is asked once more."""

    async def open(self, request: HttpRequest) -> Response:
        response = await super().open(request)
        if response.status != 503:
            return response
        await response.aclose()
        return await super().open(request)


class FollowsRedirects(Sound):
    """If the redirect keeps the method, the request is sent again as it is."""

    async def open(self, request: HttpRequest) -> Response:
        response = await super().open(request)
        if response.status not in (307, 308):
            return response
        await response.aclose()
        return await super().open(replace(request, url=request.url.replace(request.target, "/elsewhere")))


class WantsItCompressed(Sound):
    """A request without a body says that its reply may be compressed."""

    async def open(self, request: HttpRequest) -> Response:
        if not request.body:
            others = (field for field in request.headers if field[0] != "accept-encoding")
            request = replace(request, headers=(*others, ("accept-encoding", "gzip")))
        return await super().open(request)


class LeavesFieldsOut(Sound):
    """Those that have no effect are not sent."""

    async def open(self, request: HttpRequest) -> Response:
        others = tuple(field for field in request.headers if field[0] not in ("accept-encoding", "user-agent"))
        return await super().open(replace(request, headers=others))


class AsksBeforeABigBody(Sound):
    """Whether a body is wanted at all."""

    async def open(self, request: HttpRequest) -> Response:
        if len(request.body) > 1024:
            request = replace(request, headers=(*request.headers, ("expect", "100-continue")))
        return await super().open(request)


class AsksForATunnelWithoutAHost(Sound):
    """As Python's http.client did before 3.12."""

    takes = ("proxy", "ssl_context")

    async def open(self, request: HttpRequest) -> Response:
        module: Any = httptools
        spell = module._spell_head

        def spell_head(method: str, target: str, fields: object) -> object:
            return spell(method, target, () if method == "CONNECT" else fields)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_spell_head", spell_head)
            return await super().open(request)


class MergingReply(Reply):
    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return tuple(dict(super().headers).items())


class MergesFields(Sound):
    """A field that comes twice is returned once."""

    make_reply = MergingReply


class InterimReply(Reply):
    @property
    def status(self) -> int:
        return 103 if super().status == 200 else super().status


class ReturnsAnInterimStatus(Sound):
    """The status is that of the hints."""

    make_reply = InterimReply


class ChangingReply(Reply):
    async def receive(self) -> bytes:
        return cast("bytes", bytearray(await super().receive()))


class ReturnsBytearrays(Sound):
    """What is returned can be changed."""

    make_reply = ChangingReply


class LineReply(Reply):
    unread = b""

    async def receive(self) -> bytes:
        while b"\n" not in self.unread:
            data = await super().receive()
            if not data:
                data, self.unread = self.unread, b""
                return data
            self.unread += data
        data, _, self.unread = self.unread.partition(b"\n")
        return data + b"\n"


class HoldsLinesBack(Sound):
    """What has arrived is returned line by line."""

    make_reply = LineReply


class BlockingReply:
    """A reply whose connection is read in the event loop's thread, which waits meanwhile."""

    def __init__(self, exchange: BlockingExchange) -> None:
        self.exchange = exchange

    @property
    def status(self) -> int:
        return self.exchange.status

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return self.exchange.headers

    async def receive(self) -> bytes:
        return self.exchange.receive()

    async def aclose(self) -> None:
        self.exchange.close()


class BlocksTheEventLoop(BlockingHttpxTransport):
    """A blocking library is called in the event loop's thread."""

    async def open(self, request: HttpRequest) -> Response:  # type: ignore[override]
        exchange = self._client.exchange(request)
        exchange.begin()
        return BlockingReply(exchange)


class LeaksUntilTheEnd(Sound):
    """A reply that is closed keeps its connection."""

    make_reply = OpenReply


class PatientReply(Reply):
    async def aclose(self) -> None:
        await anyio.sleep_forever()


class NeverClosesAReply(Sound):
    """Closing a reply waits for ever."""

    make_reply = PatientReply


class NeverCloses(Sound):
    """Closing the transport waits for ever."""

    async def aclose(self) -> None:
        await super().aclose()
        await anyio.sleep_forever()


class LeaksForGood(Sound):
    """The transport never closes a kept connection."""

    async def aclose(self) -> None:
        pass


class OneByteReply(Reply):
    unread = b""

    async def receive(self) -> bytes:
        self.unread = self.unread or await super().receive()
        data, self.unread = self.unread[:1], self.unread[1:]
        return data


class OneByteAtATime(Sound):
    """This is no bug: what has arrived may be returned in parts."""

    make_reply = OneByteReply


def of_the_page(name: str, *changes: tuple[str, str]) -> Callable[..., Transport]:
    """The transport on h11 that the page on transports has, with something changed in it."""
    text = H11
    for right, wrong in changes:
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    names: dict[str, Any] = {"__name__": name}
    exec(compile(text, name, "exec"), names)
    make: Callable[..., Transport] = type(name, (names["H11Transport"],), {"takes": ("connect_timeout",)})
    return make


def sends_later() -> Callable[..., Transport]:
    """The transport on http.client that the page has. It forgets that it was interrupted while it connected."""
    notices = "        if self._is_interrupted:\n            self.interrupt()\n"
    assert HTTP_CLIENT.count(notices) == 1
    names: dict[str, Any] = {"__name__": "sends_later"}
    exec(compile(HTTP_CLIENT.replace(notices, ""), "sends_later", "exec"), names)

    class SendsLater(BlockingTransport):
        takes = ("connect_timeout",)

        def __init__(self, **options: object) -> None:
            super().__init__(names["HttpClient"](**options))

    return SendsLater


SENDS_LATER = sends_later()

BREAKS = '            raise MaybeSent(f"the connection broke: {error!r}") from error\n        while not'
CLOSES = "        except BaseException:\n            await reply.aclose()\n"

AS_ON_THE_PAGE = of_the_page("AsOnThePage")
CALLS_A_BROKEN_SEND_NOT_SENT = of_the_page("CallsABrokenSendNotSent", (BREAKS, BREAKS.replace("MaybeSent", "NotSent")))
FIELDS = 'value.decode("latin-1")'
READS = "data = await self._stream.receive()"

WANTS_UTF8 = of_the_page("WantsUtf8", (FIELDS, FIELDS.replace("latin-1", "utf-8")))
BOUNDS_EACH_READ = of_the_page(
    "BoundsEachRead",
    ("H11Reply(stream)", "H11Reply(stream, self._connect_timeout)"),
    ("__init__(self, stream)", "__init__(self, stream, timeout)"),
    ("self._failure = None", "self._failure = None\n        self._timeout = timeout"),
    (READS, f"\n                    with anyio.fail_after(self._timeout):\n                        {READS}"),
)
BOUNDS_ALL_OF_OPEN = of_the_page(
    "BoundsAllOfOpen",
    (
        "            await reply.begin(",
        "            with anyio.fail_after(self._connect_timeout):\n                await reply.begin(",
    ),
)
LEAKS_WHERE_OPEN_IS_CANCELLED = of_the_page(
    "LeaksWhereOpenIsCancelled", (CLOSES, CLOSES.replace("BaseException", "MaybeSent"))
)

NOT_SENT = "was sent, but open() raised NotSent"
LOST = "bytes were lost without an error"
HELD_BACK = "part 1 was sent, but receive() does not return it: it is held back"
SWALLOWED = "the cancellation was swallowed"
CHANGED = "the GET was changed: its field accept-encoding was ['identity'], and became"
BLOCKED = "the event loop was blocked"
CLEAN_END = "receive() returns b'' after the cut of b'HTTP/1.1 200 OK"


BEFORE_A_REPLY = (
    "an_end_before_the_reply",
    "a_reset_before_the_reply",
    "an_end_within_the_head",
    "a_reply_that_is_no_http",
)


def left_open(after: str) -> str:
    """The end of "a connection is still open" and how long."""
    return f" s after {after} (BlockingTransport: `interrupt` must end a blocked `begin` or `receive`)"


CAUGHT_BY: dict[Callable[..., Transport], dict[str, str]] = {
    Sound: {},
    OneByteAtATime: {},
    AS_ON_THE_PAGE: {},
    DropsTheLastChunk: {
        "test_a_part_of_a_known_length_is_delivered_while_the_rest_is_not_sent": "part 2 was lost",
        "test_a_long_wait_is_neither_ended_nor_begun_again": "the rest of the body was lost",
        "test_chunks_may_be_cut_anywhere": "with the chunks cut at byte 4",
        "test_the_connection_of_an_open_stream_is_used_for_nothing_else": "the rest of the stream was lost",
        "test_a_cancelled_receive_loses_nothing": LOST,
        "test_a_receive_that_is_cancelled_as_bytes_come_loses_nothing": LOST,
    },
    MergesChunksLate: {
        "test_a_chunk_is_delivered_while_the_next_is_not_sent": HELD_BACK,
        "test_a_part_of_a_known_length_is_delivered_while_the_rest_is_not_sent": HELD_BACK,
        "test_a_part_of_an_unknown_length_is_delivered_while_the_rest_is_not_sent": HELD_BACK,
        "test_a_receive_that_is_cancelled_as_bytes_come_loses_nothing": LOST,
    },
    SwallowsCancellation: {
        "test_receive_can_be_cancelled": SWALLOWED,
        "test_a_cancelled_receive_loses_nothing": SWALLOWED,
    },
    EndsWhereItBreaks: {
        "test_chunks_that_end_too_early_are_no_clean_end": CLEAN_END,
        "test_chunks_that_are_none_are_no_clean_end": CLEAN_END,
        "test_a_body_shorter_than_announced_is_no_clean_end": CLEAN_END,
        "test_a_reset_within_a_body_is_no_clean_end": CLEAN_END,
    },
    TellsABreakOnce: {
        "test_chunks_that_end_too_early_are_no_clean_end": "a second receive() returns b''",
        "test_chunks_that_are_none_are_no_clean_end": "a second receive() returns b''",
        "test_a_body_shorter_than_announced_is_no_clean_end": "a second receive() returns b''",
        "test_a_reset_within_a_body_is_no_clean_end": "a second receive() returns b''",
    },
    ReportsSentAsNotSent: {
        f"test_{failure}_may_have_been_sent": f"the first request, a GET, {NOT_SENT}" for failure in BEFORE_A_REPLY
    }
    | {
        "test_a_reset_while_the_body_is_sent_may_have_been_sent": f"the first request {NOT_SENT}",
        "test_a_request_is_not_sent_again_to_a_name_s_next_address": f"the request {NOT_SENT}",
    },
    ReportsNotSentAsMaybeSent: {
        f"test_{failure}_was_not_sent": "open() raised MaybeSent, but nothing was sent: raise NotSent"
        for failure in ("a_refused_connection", "a_certificate_of_an_unknown_authority", "a_server_that_speaks_no_tls")
    },
    RefusesALineBreak: {
        "test_a_line_break_in_a_header_is_not_sent": "open() raised ValueError because of a line break: raise NotSent"
    },
    CALLS_A_BROKEN_SEND_NOT_SENT: {
        "test_a_reset_while_the_body_is_sent_may_have_been_sent": f"the first request {NOT_SENT}",
    },
    SendsAgain: {
        f"test_{failure}_may_have_been_sent": "the first request, a GET, was sent again" for failure in BEFORE_A_REPLY
    }
    | {
        "test_a_reset_while_the_body_is_sent_may_have_been_sent": "the first request was sent again",
        "test_a_request_is_not_sent_again_to_a_name_s_next_address": "the request was sent again",
    },
    SendsABigBodyAgain: {
        "test_a_reset_while_the_body_is_sent_may_have_been_sent": "the first request was sent again",
    },
    SendsAgainOnAReusedConnection: {
        f"test_{failure}_may_have_been_sent": "the second request, a GET, was sent again" for failure in BEFORE_A_REPLY
    }
    | {"test_a_reset_while_the_body_is_sent_may_have_been_sent": "the second request was sent again"},
    TakesACutHead: {
        "test_an_end_before_the_reply_may_have_been_sent": "although the server sent only b'': raise MaybeSent",
        "test_an_end_within_the_head_may_have_been_sent": (
            "the first request, a GET, got a reply, although the server sent only "
            r"b'HTTP/1.1 200 OK\r\ncontent-le': raise MaybeSent"
        ),
    },
    TriesAllOfItAtTheNextAddress: {
        "test_a_request_is_not_sent_again_to_a_name_s_next_address": "the request was sent again",
    },
    SendsAgainAfterATimeOfItsOwn: {"test_a_long_wait_is_neither_ended_nor_begun_again": "the request was sent again"},
    GivesUpAfterATimeOfItsOwn: {"test_a_long_wait_is_neither_ended_nor_begun_again": "the transport gave up by itself"},
    CallsEveryTlsFailureNotSent: {"test_a_tls_failure_before_the_reply_may_have_been_sent": NOT_SENT},
    TakesACutForAFailedHandshake: {"test_a_cut_after_the_tls_handshake_may_have_been_sent": NOT_SENT},
    IgnoresTheBodyOfADelete: {
        "test_a_body_is_handed_over_whatever_the_method": "the body of the 200 to a DELETE is lost"
    },
    UsesTheConnectionOfAStream: {
        "test_the_connection_of_an_open_stream_is_used_for_nothing_else": "over the connection of an open stream",
        "test_closing_waits_for_no_peer": "the transport hangs",
    },
    ClosesAfterItsPeers: {"test_closing_waits_for_no_peer": "transport.aclose() waits for its peers"},
    SaysGoodbyeInTls: {"test_closing_waits_for_no_peer": "transport.aclose() waits for its peers"},
    ReadsWhatIsLeft: {
        "test_what_comes_after_a_reply_is_not_read_as_the_next_one": "bytes after a reply were read as the next reply"
    },
    AsksAgainWhenRefusedForGood: {
        "test_a_refusal_that_closes_its_connection_is_handed_over": "more was sent after the 401 to a GET"
    },
    AsksAgainWhenRefused: {
        "test_a_refusal_is_handed_over": "more was sent after the 503 to a GET",
        "test_a_refusal_that_closes_its_connection_is_handed_over": "more was sent after the 503 to a GET",
    },
    FollowsRedirects: {"test_a_redirect_is_not_followed": "the status after a GET is 200, not 307"},
    WantsItCompressed: {
        "test_a_conversation_s_fields_go_out_as_they_are": CHANGED,
    },
    LeavesFieldsOut: {
        "test_a_conversation_s_fields_go_out_as_they_are": (
            f"{CHANGED} []; its field user-agent was ['oa_protocol/1.0'], and became []"
        ),
    },
    AsksForATunnelWithoutAHost: {
        "test_a_proxy_is_asked_for_a_tunnel": (
            "the field host of the CONNECT is [], not ['oa.invalid:443'] or ['oa.invalid']"
        )
    },
    MergesFields: {
        "test_status_and_header_fields_are_handed_over": (
            "the list of header fields is [('x-two', '1'), ('x-one', 'a, b; c'), ('x-two', '3')], "
            "not [('x-two', '1'), ('x-one', 'a, b; c'), ('x-two', '2'), ('x-two', '3')]"
        )
    },
    ReturnsAnInterimStatus: {
        "test_an_interim_reply_is_skipped": "the status after two interim replies is 103, not 200",
        "test_a_body_is_handed_over_whatever_the_method": "the status after a GET is 103, not 200",
    },
    AsksBeforeABigBody: {"test_a_big_body_is_sent_whole": "the server was asked first"},
    WANTS_UTF8: {"test_a_header_field_may_hold_any_byte": "UnicodeDecodeError"},
    ReturnsBytearrays: {"test_a_body_comes_as_bytes": "receive() returned a bytearray"},
    BOUNDS_ALL_OF_OPEN: {"test_the_time_for_a_connection_is_for_nothing_else": "TimeoutError"},
    BOUNDS_EACH_READ: {"test_the_time_for_a_connection_is_for_nothing_else": "TimeoutError"},
    IsCancelledBeforeItCloses: {
        "test_a_close_that_is_cancelled_closes_all_the_same": left_open("a cancelled reply.aclose()"),
    },
    LEAKS_WHERE_OPEN_IS_CANCELLED: {
        "test_open_can_be_cancelled_while_it_sends": left_open("open() was cancelled"),
        "test_open_can_be_cancelled_while_it_waits_for_the_head": left_open("open() was cancelled"),
    },
    LeaksUntilTheEnd: {
        "test_receive_can_be_cancelled": left_open("reply.aclose()"),
        "test_a_reply_closed_midway_closes_its_connection": left_open("reply.aclose()"),
        "test_a_close_that_is_cancelled_closes_all_the_same": left_open("a cancelled reply.aclose()"),
    },
    LeaksForGood: {
        "test_a_closed_transport_has_no_connections": left_open("transport.aclose()"),
        "test_closing_the_transport_closes_open_replies": left_open("transport.aclose()"),
        "test_a_close_that_is_cancelled_closes_all_the_same": left_open("a cancelled transport.aclose()"),
        "test_nothing_is_left_to_the_garbage_collector": "unclosed",
    },
}

# Each test that waits for something ends these, and says so; a few of them show how.
HANGS: dict[Callable[..., Transport], dict[str, str]] = {
    HoldsLinesBack: {
        "test_a_chunk_is_delivered_while_the_next_is_not_sent": HELD_BACK.replace("1", "0"),
        "test_chunks_may_be_cut_anywhere": "with the chunks cut at byte 4, the data before that is held back",
        "test_a_body_shorter_than_announced_is_no_clean_end": "the data before the cut of b'HTTP/1.1",
        "test_nothing_is_left_to_the_garbage_collector": "a part of the body was sent, but receive() does not",
    },
    NeverClosesAReply: {
        "test_closing_twice_is_harmless": "the transport hangs: the test was not done after 2 s",
    },
    NeverCloses: {
        "test_the_request_goes_out_as_it_is": "transport.aclose() does not return",
    },
    BlocksTheEventLoop: {
        "test_open_can_be_cancelled_while_it_waits_for_the_head": BLOCKED,
        "test_receive_can_be_cancelled": BLOCKED,
        "test_nothing_is_left_to_the_garbage_collector": BLOCKED,
    },
}

# The big bodies tell nothing here that the small ones do not.
TESTS = [name for name in dir(TransportConformance) if name.startswith("test_") and "_big_" not in name]


def failure_of(bug: Callable[..., Transport], name: str, patience: float) -> str | None:
    """Return the failure of this test of the suite with the transport, or None if it passes."""

    class Suite(TransportConformance):
        takes = getattr(bug, "takes", ())

        def make(self, **options: object) -> Transport:
            return bug(**options)

    Suite.patience = patience
    try:
        getattr(Suite(), name)("asyncio")
    except pytest.skip.Exception:
        return None
    except (Exception, pytest.fail.Exception) as failure:
        return f"{type(failure).__name__}: {failure}"
    return None


@pytest.fixture
def garbage() -> Generator[None]:
    """Connections that leak here are no news to the tests that come after."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.mark.usefixtures("garbage")
@pytest.mark.parametrize("bug", CAUGHT_BY, ids=lambda bug: bug.__name__)
def test_a_bug_is_caught_by_these_tests_and_no_others(bug: Callable[..., Transport]) -> None:
    for name in TESTS:
        if name not in CAUGHT_BY[bug]:
            assert failure_of(bug, name, TransportConformance.patience) is None, name
    assert_told(bug, CAUGHT_BY[bug])


@pytest.mark.usefixtures("garbage")
@pytest.mark.parametrize("bug", HANGS, ids=lambda bug: bug.__name__)
def test_what_hangs_is_ended(bug: Callable[..., Transport]) -> None:
    assert_told(bug, HANGS[bug])


@pytest.mark.skipif(sys.platform != "linux", reason="a connection can be made to hang on Linux")
def test_a_request_that_is_sent_after_it_was_cancelled_is_noticed() -> None:
    # The kernel tries again after a second, which is nearly all of the time that the other bugs get.
    name, patience = "test_a_cancelled_open_sends_nothing_later", TransportConformance.patience
    failure = failure_of(SENDS_LATER, name, patience)
    assert failure is not None
    assert "what was sent later is b'POST / HTTP/1.1" in failure


def assert_told(bug: Callable[..., Transport], caught_by: dict[str, str]) -> None:
    for name, told in caught_by.items():
        failure = failure_of(bug, name, patience=2.0)  # what hangs is waited for
        assert failure is not None, name
        assert told in failure, name


@pytest.mark.parametrize("made", [None, object()])
def test_a_make_that_returns_no_transport_is_refused(made: object) -> None:
    def make() -> Transport:
        return cast("Transport", made)

    failure = failure_of(make, "test_closing_twice_is_harmless", patience=2.0)
    assert failure == (
        f"TypeError: make() returned no transport, but {made!r}; wrap a BlockingClient in BlockingTransport"
    )


@pytest.mark.parametrize(
    ("name", "value", "error", "told"),
    [
        ("backends", "trio", TypeError, r"backends must be a sequence of names, not a name: write \('trio',\)"),
        ("takes", "proxy", TypeError, r"takes must be a sequence of names, not a name: write \('proxy',\)"),
        (
            "takes",
            ("connect_timout",),
            ValueError,
            "exist: connect_timout; there are connect_timeout, proxy, ssl_context",
        ),
    ],
)
def test_a_suite_that_would_not_test_what_it_says_is_refused(
    name: str, value: object, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        type("TestMine", (TransportConformance,), {name: value})
