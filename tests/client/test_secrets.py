"""No text contains a secret, for every reply of the server and every phase of the conversation."""

from __future__ import annotations

import io
import itertools
import json
import logging
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from oa_protocol import Cleanup, Client, OAError
from oa_protocol.engine.errors import MaybeSent, NotSent
from oa_protocol.engine.events import Event, Failed, Leaked
from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    ExchangeFailed,
    Input,
    ReplyReceived,
    StreamData,
)
from oa_protocol.server import Fault, Reply, Server, Step
from oa_protocol.tape import Recorder, Tape
from oa_protocol.tape.format import Json, take_step
from tests.tape.taping import CASES, recorder

SECRETS = {
    "cookie": 'cookie-qzxa"quoted\\slashed',
    "part": "part-of-a-cookie-qzxb",
    "token": "eyJhbGciOiJIUzI1NiJ9/token+qzxc",
    "user": "proxy-user-qzxd",
    "password": "proxy-password-qzxe",
}
MARKS = ("qzxa", "qzxb", "qzxc", "qzxd", "qzxe")
"""What no two of them have in common, no escape changes, and no id has in it."""

PROXY = f"http://{SECRETS['user']}:{SECRETS['password']}@127.0.0.1:1"
ECHO = " ".join((SECRETS["cookie"], SECRETS["part"], SECRETS["token"]))
ITEMS = [{"msg": ECHO, "loc": [ECHO]}]
BODIES = [
    json.dumps({"detail": ECHO, "message": ECHO}),
    json.dumps({"detail": ITEMS, "message": ITEMS}),
    json.dumps({"id": ECHO, "state": ECHO, "role": ECHO, "messages": [], "chats": [{"id": ECHO}], "next": ECHO}),
    f"{'x' * 150} {ECHO}",
]
EVENTS: list[Json] = [
    {"event_type": "token", "text": ECHO},
    {"event_type": "error", "error": ECHO},
    {"event_type": "message", "message": {"id": ECHO, "role": "assistant", "state": "complete", "content": ECHO}},
    {"event_type": ECHO},
    {"event_type": "token", "text": [ECHO]},
]


def echoes(*, of_stream: bool) -> Iterator[Input]:
    """Whatever a server can say that repeats the credentials, and a network that repeats its proxy."""
    if of_stream:
        yield from (StreamData(f"data: {json.dumps(event)}\r\n\r\n".encode()) for event in EVENTS)
        return
    for status, body in itertools.product((200, 302, 401, 422, 500, 503), BODIES):
        headers = (("location", f"/login?{ECHO}"), ("set-cookie", f"a={SECRETS['part']}"), ("retry-after", "70"))
        yield ReplyReceived(status, headers, body.encode())
    yield ExchangeFailed(NotSent(f"cannot connect to {PROXY}"))
    yield ExchangeFailed(MaybeSent(f"the connection to {PROXY} broke"))


def situations() -> dict[str, tuple[Tape, int]]:
    """Each exchange in each phase, and an open stream: a case, and how many of its steps lead there."""
    found: dict[str, tuple[Tape, int]] = {}
    for case in CASES.values():
        for number, step in enumerate(case.steps, 1):
            waits = "method" in (step.get("intent") or {})
            if waits or step.get("input") == {"type": "StreamOpened"}:
                what = step["intent"]["kind"] if waits else "a stream"
                found.setdefault(f"{case.config['api']}, {step['phase']}, {what}", (case, number))
    return found


def said(events: list[Event]) -> Iterator[str]:
    for event in events:
        match event:
            case Failed(error):
                yield f"{error} {error!r} {error.__cause__}"
            case Leaked(records):
                yield repr(records)
            case _:
                pass


def to_the_end(conversation: Recorder, happened: Input) -> Iterator[str]:
    """Hand it in, and then leave a server that is not there any more; yield what was said and shown."""
    yield from said(conversation.handle(happened, 100.0))
    yield repr(conversation)
    yield from said(conversation.handle(Close(), 100.0))
    yield f"{conversation.next_intent(100.0)!r} {conversation!r}"
    yield from said(conversation.handle(Abandon(), 100.0))


@pytest.mark.clause("OA-2.5")
@pytest.mark.parametrize(("case", "steps"), situations().values(), ids=situations().keys())
def test_no_word_of_a_server_puts_a_secret_into_an_error_a_repr_or_a_tape(case: Tape, steps: int) -> None:
    cookies = {"next-auth.session-token": SECRETS["cookie"], "session.0": SECRETS["part"]}
    config = case.config | {"credentials": {"cookies": cookies, "token": SECRETS["token"]}}
    of_stream = case.steps[steps - 1].get("input") == {"type": "StreamOpened"}
    for happened in echoes(of_stream=of_stream):
        file = io.StringIO()
        conversation = recorder(config, file)
        for step in case.steps[:steps]:
            take_step(conversation, step)
        shown = list(to_the_end(conversation, happened))
        text = file.getvalue()
        shown += [text, *(str(json.loads(line)) for line in text.splitlines())]
        assert not [(mark, each) for mark in MARKS for each in shown if mark in each], happened


@pytest.mark.clause("OA-2.5")
@pytest.mark.anyio
@pytest.mark.usefixtures("no_environment", "no_delays")
@pytest.mark.parametrize("step", ["create", "prompt", "request", "events", "models", "delete"])
async def test_no_word_of_a_server_puts_a_secret_into_a_warning_a_log_or_a_traceback(
    step: Step, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="oa_protocol")
    shown: list[str] = []
    with Server() as server:
        cookies = {**server.cookies, **{name: SECRETS[name] for name in ("cookie", "part", "token")}}
        for status, body in zip((422, 302, 200, 500), BODIES, strict=True):
            header = ("location", f"/login?{quote(ECHO)}")
            server.script(Fault(step, before=Reply(status, body.encode(), (header,))))
            tape = tmp_path / f"{status}.jsonl"
            client = Client(server.url, cookies=cookies, retries=0, cleanup=Cleanup(attempts=1))
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                try:
                    async with client:
                        if step == "models":
                            await client.models()
                        async with client.chat(tape=tape) as chat:
                            shown += [repr(client), repr(chat)]
                            await chat.ask("Hello")
                except OAError as error:
                    shown += traceback.format_exception(error)
            shown += [repr(client.leaked), *(str(each.message) for each in warned)]
            shown.append(tape.read_text("utf-8") if tape.exists() else "")
    shown += [record.getMessage() for record in caplog.records if record.name == "oa_protocol"]
    assert not [(mark, each) for mark in MARKS for each in shown if mark in each]
