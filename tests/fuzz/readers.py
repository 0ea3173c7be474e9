"""Everything that reads bytes which somebody else wrote: how to call it, and what it may raise.

``test_readers.py`` gives each reader random and slightly wrong bytes, and ``run.py`` gives it millions of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from oa_protocol.bindings.base import Binding, Credentials
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.replies import Reply
from oa_protocol.bindings.sse import SSEDecoder
from oa_protocol.bindings.website import Website
from oa_protocol.cli._bulk import read_accounts
from oa_protocol.cli._bulk_input import Format, read_prompts
from oa_protocol.cli._bulk_output import Results
from oa_protocol.client._content_coding import decoded
from oa_protocol.client.cookies import load_cookies
from oa_protocol.client.journal import Journal
from oa_protocol.client.slots import Ticket
from oa_protocol.engine.errors import ApiError, AuthenticationError, JournalError, MaybeSent, RemoteProtocolError
from oa_protocol.engine.inputs import (
    Close,
    CredentialsFound,
    ExchangeFailed,
    Input,
    ReplyReceived,
    StreamData,
    StreamEnded,
    StreamOpened,
    TimePassed,
)
from oa_protocol.engine.intents import CloseStream, Exchange, LoadCredentials, OpenStream
from oa_protocol.models._completions import read_chunk, read_error
from oa_protocol.models.base import ModelError
from oa_protocol.server._worker_protocol import DecodeErrors, decode_hello, decode_response
from oa_protocol.server.core import Request, ServerState, handle, with_account
from oa_protocol.server.exchanges import note_body, note_event, note_reply, record_of, seconds_to_wait
from oa_protocol.tape import Tape, normalize, parse_tapes, replay, to_html, transcript
from oa_protocol.tape.format import new_conversation, take_step
from oa_protocol.tape.har import parse_har
from oa_protocol.transports.fast._reply import Reply as HttpReply
from oa_protocol.worker.protocol import decode_request
from tests.examples.langgraph_binding import LangGraph

from . import seeds

URL = "https://oa.example.org"
WHO = Credentials({"next-auth.session-token": "secret"})
BINDINGS: tuple[Binding, ...] = (Website(URL), InferenceServer(URL), LangGraph(URL, "agent"))
MANY_STEPS = 200

_ACCIDENTS = (UnicodeError, json.JSONDecodeError)
"""Kinds of ValueError that a reader raises on purpose only if it documents them by name."""


@dataclass(frozen=True)
class Reader:
    """``read`` must return, or raise one of ``errors``, which it documents. ``seeds`` returns valid inputs."""

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    errors: tuple[type[Exception], ...] = ()

    def takes(self, data: bytes) -> bool:
        """Let it read ``data``. Return whether it did so without an error. Other errors than its own are raised."""
        try:
            self.read(data)
        except self.errors as error:
            if isinstance(error, _ACCIDENTS) and type(error) not in self.errors:
                raise
            return False
        return True


# ---- what a server sends


def _event_stream(data: bytes) -> None:
    """However the stream is cut, its payloads are the same."""
    whole, bytewise = (SSEDecoder(100_000, types=(b"error",)) for _ in range(2))
    assert list(whole.feed(data)) == [payload for byte in data for payload in bytewise.feed(bytes([byte]))]


def _conversation(data: bytes) -> None:
    """Hold a conversation in which this is every reply from some step on. It must end all the same."""
    reply = HttpReply()
    reply.feed(data[1:])
    reply.feed_end()
    body = reply.take_body()
    turn, done = seeds.STARTS[sum(data[:1]) % len(seeds.STARTS)]
    conversation = new_conversation(turn.config)
    for step in turn.steps[:done]:
        take_step(conversation, step)
    now = 1000.0
    for _ in range(MANY_STEPS):
        match conversation.next_intent(now):
            case None if conversation.is_over:
                return
            case None if conversation.deadline and not conversation.awaits_prompt:
                now = max(now, conversation.deadline)
                happened: list[Input] = [TimePassed()]
            case None:
                happened = [Close()]
            case OpenStream() if reply.is_complete and reply.status == 200:
                happened = [StreamOpened(), StreamData(body), StreamEnded()]
            case Exchange() if reply.is_complete:
                happened = [ReplyReceived(reply.status, reply.headers, body)]
            case Exchange():
                happened = [ExchangeFailed(MaybeSent(reply.fault))]
            case LoadCredentials():
                happened = [CredentialsFound(WHO)]
            case CloseStream():
                happened = [StreamEnded()]
        for each in happened:
            conversation.handle(each, now)
    raise AssertionError(f"the conversation does not end: {conversation.phase}")


def _reply(data: bytes) -> None:
    """Read a reply as everything that a client may have asked for."""
    for binding in BINDINGS:
        for status in (200, 404, 500):
            reply = Reply.of(binding, status, {"retry-after": data.decode("latin-1")}, data, WHO)
            str(reply.error("reading", "POLLING"))
            assert isinstance(reply.confirms_deletion, bool)
            assert isinstance(reply.denies_chat, bool)
        for read in _reads(binding):
            with suppress(ApiError, RemoteProtocolError):
                Reply.of(binding, 200, {}, data, WHO).decode(read, "JSON", None)


def _reads(binding: Binding) -> tuple[Callable[[bytes], object], ...]:
    return (
        binding.read_chat_id,
        binding.read_prompt_id,
        binding.read_answer_id,
        binding.read_chat,
        binding.read_chat_list,
        binding.read_models,
        lambda body: binding.read_message(body, "x"),
    )


class _Coded:
    """A compressed reply, in two pieces."""

    status = 200
    headers = (("content-encoding", "deflate"),)

    def __init__(self, data: bytes) -> None:
        self._pieces = [data[:20], data[20:]]

    async def receive(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    async def aclose(self) -> None:
        pass


def _compressed_reply(data: bytes) -> None:
    response = decoded(_Coded(data))
    while _result_of(response.receive()):
        pass


def _result_of(coroutine: Coroutine[object, object, bytes]) -> bytes:
    """Run a coroutine that waits for nothing. An event loop for each input would take most of the time."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        found: bytes = ended.value
        return found
    raise AssertionError("it waits")


# ---- files


@contextmanager
def _file(data: bytes) -> Generator[Path]:
    with TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(data)
        path.chmod(0o600)
        yield path


def _cookies_file(data: bytes) -> None:
    with _file(data) as path:
        load_cookies(path, URL, now=1.7e9)


def _cookie_header(data: bytes) -> None:
    load_cookies(data.decode("latin-1"), URL)


def _har_file(data: bytes) -> None:
    for tape in parse_har(data.decode(errors="replace")):
        _use(tape)


def _tape(data: bytes) -> None:
    for tape in parse_tapes(data.decode(errors="replace")):
        _use(tape)


def _use(tape: Tape) -> None:
    str(replay(tape))
    assert list(transcript(tape))
    assert to_html(tape)
    assert str(normalize(tape))


def _journal(data: bytes) -> None:
    with _file(data) as path:
        journal = Journal(path, patience=0)
        lines = journal.lines()
        assert set(journal.lines(BINDINGS[0])) <= set(lines)
        journal.elsewhere(BINDINGS[0])
        journal.living({line.owner for line in lines})
        for line in lines:
            journal.forget(line.line)
        try:
            journal.gone(journal.creating(BINDINGS[0], "account"))
        finally:
            journal.close()


def _prompts(form: Format, data: bytes) -> None:
    with _file(data) as path:
        read_prompts(str(path), form)


def _results(data: bytes) -> None:
    with _file(data) as path, Results(path):
        pass


def _accounts(data: bytes) -> None:
    with _file(data) as path:
        read_accounts(str(path))


def _slot(data: bytes) -> None:
    """The names of the files in a slot's folder, with slashes between them."""
    with TemporaryDirectory() as folder:
        for name in data.decode(errors="ignore").split("/"):
            if name not in ("", ".", "..") and "\0" not in name and len(name.encode()) < 200:
                Path(folder, name).touch()
        ticket = Ticket(Path(folder))
        ticket.ahead()
        ticket.close()


# ---- requests, workers, models


def _request(data: bytes) -> None:
    """A request to the embedded server, as HTTP has it."""
    head, _, body = data.partition(b"\n\n")
    line, *fields = head.decode("latin-1").split("\n")
    method, _, target = line.partition(" ")
    state, account = with_account(ServerState(), "ann")
    headers = [("authorization", f"Bearer {account.token}")] if len(fields) < 2 else []
    for field in fields:
        name, _, value = field.partition(": ")
        headers.append((name.lower(), value))
    request = Request(method, f"/{target}", tuple(headers), body)
    state, reply = handle(state, request)
    assert 200 <= reply.status < 600
    record = record_of(request, 0)
    record.status = 200
    note_body(record, body)
    note_event(record, body)
    note_reply(record, body)
    seconds_to_wait(dict(headers))


def _completion(data: bytes) -> None:
    read_error(data)
    for payload in SSEDecoder(100_000, types=(b"error",)).feed(data):
        read_chunk(payload)


READERS: dict[str, Reader] = {
    "event stream": Reader(_event_stream, seeds.event_streams),
    "conversation": Reader(_conversation, seeds.conversations),
    "reply": Reader(_reply, seeds.replies),
    "compressed reply": Reader(_compressed_reply, seeds.compressed_replies, (MaybeSent,)),
    "cookies file": Reader(_cookies_file, seeds.cookies_files, (AuthenticationError, ValueError)),
    "Cookie header": Reader(_cookie_header, lambda: [b"Cookie: a=b; c=d", b"'a=b'"], (AuthenticationError, ValueError)),
    "HAR file": Reader(_har_file, seeds.har_files, (ValueError,)),
    "tape": Reader(_tape, seeds.tapes, (ValueError, TypeError)),
    "journal": Reader(_journal, seeds.journals, (JournalError,)),
    "prompts in lines": Reader(partial(_prompts, "lines"), lambda: [b"Hello\nthere\r\n"], (click.UsageError,)),
    "prompts in JSON": Reader(partial(_prompts, "jsonl"), seeds.prompts_in_json, (click.UsageError,)),
    "prompts in CSV": Reader(partial(_prompts, "csv"), seeds.prompts_in_csv, (click.UsageError,)),
    "results": Reader(_results, seeds.results, (click.ClickException,)),
    "accounts": Reader(_accounts, lambda: [b"# mine\ntoken\n\nother\n"], (click.UsageError,)),
    "slot": Reader(_slot, lambda: [b"gate/000000000001-0123456789abcdef0123456789abcdef/5-x"], (OSError,)),
    "work for a worker": Reader(partial(decode_request, model="_lorem"), seeds.work, (RemoteProtocolError,)),
    "completion": Reader(_completion, seeds.completions, (ModelError,)),
    "request": Reader(_request, seeds.requests),
    "worker's first text": Reader(decode_hello, seeds.first_texts, DecodeErrors),
    "worker's response": Reader(decode_response, seeds.responses, DecodeErrors),
}
