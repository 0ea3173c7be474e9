"""Tapes from a browser's recording of a website."""

from __future__ import annotations

import base64
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from oa_protocol.tape import Tape, load_tapes, normalize, parse_tapes, replay
from oa_protocol.tape.format import Json, decode_bytes
from oa_protocol.tape.har import parse_har
from tests.captures import Recorded, every, scenario
from tests.driver.site import Site

from .taping import ONE_TURN, two_turns

SCENARIOS = sorted(
    {each.scenario for each in every() if each.api == "website" and each.step == "create"} - {"chat_disabled"}
)
BROWSERS = Path(__file__).parents[1] / "data" / "cookies" / "browser.har"


def entry(
    method: str, url: str, sent: str | None, status: int, headers: dict[str, str], body: bytes, *, coded: bool = False
) -> Json:
    """An exchange as a HAR file has it."""
    text = base64.b64encode(body).decode() if coded else body.decode()
    request: Json = {"method": method, "url": url, "headers": [{"name": "cookie", "value": "session=placeholder"}]}
    if sent is not None:
        request["postData"] = {"mimeType": "application/json", "text": sent}
    return {
        "request": request,
        "response": {
            "status": status,
            "headers": [{"name": name, "value": value} for name, value in {":status": str(status), **headers}.items()],
            "content": {"size": len(body), "text": text, **({"encoding": "base64"} if coded else {})},
        },
    }


def har(entries: list[Json]) -> str:
    times = count()
    dated = [each | {"startedDateTime": f"2024-05-01T10:00:{next(times):02}.000Z"} for each in entries]
    return json.dumps({"log": {"version": "1.2", "entries": dated}})


def captured(name: str, *, coded: bool = False) -> str:
    """A recorded scenario as a browser's recording."""

    def one(each: Recorded) -> Json:
        url = f"HTTPS://OA.example.org:443{each.target}"
        return entry(each.method, url, each.sent, each.status or 0, dict(each.headers), each.body, coded=coded)

    return har([one(each) for each in scenario("website", name)])


def from_tape(tape: Tape) -> list[Json]:
    """The exchanges of a website's conversation as a browser would have recorded them."""
    entries: list[Json] = []
    asked: Json = {}
    for step in tape.steps:
        match step:
            case {"intent": {"method": _} as intent}:
                asked = intent
            case {"input": {"type": "StreamOpened"}}:
                entries.append(one_of(asked, {"status": 200}))
            case {"input": {"type": "StreamData", "data": data}}:
                entries[-1]["response"]["content"]["text"] += decode_bytes(data).decode()
            case {"input": {"type": "ReplyReceived"} as reply}:
                entries.append(one_of(asked, reply))
            case _:
                pass
    return entries


def one_of(asked: Json, reply: Json) -> Json:
    sent = json.dumps(asked["body"]) if "body" in asked else None
    body = decode_bytes(reply.get("body", ""))
    return entry(asked["method"], asked["url"], sent, reply["status"], reply.get("headers", {}), body)


def with_close_at_once(tape: Tape) -> Tape:
    """The tape with an owner who leaves as a browser does, which waits for nothing."""
    text = str(tape).replace('{"type": "Close"}', '{"type": "Close", "drain": false}')
    (closed,) = parse_tapes(text)
    return closed


def phases(tape: Tape) -> list[str]:
    """The phases in their order."""
    found: list[str] = []
    for step in tape.steps:
        if step["phase"] not in found[-1:]:
            found.append(step["phase"])
    return found


def events(tape: Tape, kind: str) -> list[Any]:
    return [event for step in tape.steps for event in step.get("events", ()) if event["type"] == kind]


@pytest.mark.parametrize("coded", [False, True], ids=["text", "base64"])
def test_a_conversation_with_a_real_website_becomes_a_tape(coded: bool) -> None:
    (tape,) = parse_har(captured("happy_path", coded=coded))
    assert tape.name == "06b02a54-89e8-7932-8000-0fb1fa73d8de"
    assert tape.config["base_url"] == "https://oa.example.org"
    assert tape.config["options"]["model"] == "_lorem"
    assert tape.config["options"]["sampling"]["temperature"] == 0.75
    assert tape.steps[1]["input"] == {"type": "Prompt", "text": "Hello, who are you?"}
    assert phases(tape) == [
        *("START", "CHAT_CREATED", "PROMPTED", "ASSISTANT_REQUESTED", "STREAMING", "ANSWERED", "DELETING", "DELETED")
    ]
    assert events(tape, "Answered")[0]["text"]
    assert replay(tape) is None


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("scripted_plugin_intermediate", "ANSWERED"),
        ("scripted_worker_error_midway", "FAILED"),
        ("scripted_empty_generation", "ANSWERED"),
        ("model_not_allowed", "FAILED"),
    ],
)
def test_other_conversations_with_a_real_website_do_too(name: str, last: str) -> None:
    tape = parse_har(captured(name))[0]
    assert last in phases(tape)
    assert replay(tape) is None


@pytest.mark.parametrize("name", SCENARIOS)
def test_whatever_happened_with_a_real_website_replays(name: str) -> None:
    tapes = parse_har(captured(name))
    assert tapes
    assert [replay(tape) for tape in tapes] == [None] * len(tapes)


@pytest.mark.anyio
@pytest.mark.parametrize("api", ["website"])
async def test_what_a_browser_recorded_of_our_own_conversation_is_the_same_tape(site: Site, tmp_path: Path) -> None:
    original = await two_turns(site, tmp_path / "tape.jsonl")
    (tape,) = parse_har(har(from_tape(original)))
    assert normalize(tape).steps == normalize(with_close_at_once(original)).steps


def test_each_chat_of_a_recording_has_a_tape() -> None:
    exchanges = from_tape(ONE_TURN)
    other = json.loads(json.dumps(exchanges).replace("06b02a53-f28e", "16b02a53-f28e"))
    mixed = [each for pair in zip(exchanges, other, strict=True) for each in pair]
    assert [tape.name[:13] for tape in parse_har(har(mixed))] == ["06b02a53-f28e", "16b02a53-f28e"]
    assert {tape.steps[-1]["phase"] for tape in parse_har(har(mixed))} == {"DELETED"}


def test_what_the_page_asked_for_besides_is_left_out() -> None:
    exchanges = from_tape(ONE_TURN)
    besides = [
        entry("GET", "http://oa.example.org/api/chat", None, 200, {}, b'{"chats": []}'),
        entry("GET", "http://oa.example.org/api/chat/models", None, 200, {}, b"[]"),
        entry("GET", "http://oa.example.org/font.woff2", None, 200, {}, b""),
        entry("GET", exchanges[-1]["request"]["url"], None, 200, {}, b"{}"),
        entry("POST", "http://oa.example.org/api/chat/prompter_message", "no JSON", 400, {}, b""),
        entry("DELETE", "http://oa.example.org/api/chat?chat_id=../account/", None, 400, {}, b""),
    ]
    assert parse_har(har([*besides, *exchanges[:2], *besides, *exchanges[2:]])) == parse_har(har(exchanges))


@pytest.mark.parametrize(
    "odd",
    [
        {"startedDateTime": None},
        {"startedDateTime": {}},
        {"startedDateTime": "2024-05-01T12:00:00"},
        {"request": "\ud800"},
        {"response": None},
        {"response": {"status": None}},
        {"response": {"status": 200, "content": None, "headers": [{"name": "x", "value": None}, None]}},
        {"response": {"status": 200, "content": {"text": "é", "encoding": "base64"}}},
        {"request": {"url": "https://cdn.example.net/x.js", "postData": None, "headers": [None]}},
    ],
    ids=str,
)
def test_an_odd_entry_costs_no_other(odd: Json) -> None:
    exchanges = from_tape(ONE_TURN)
    log = json.loads(har(exchanges))
    log["log"]["entries"].insert(2, entry("GET", "https://cdn.example.net/x.js", None, 200, {}, b"") | odd)
    assert parse_har(json.dumps(log)) == parse_har(har(exchanges))


def test_an_entry_that_cannot_be_read_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    exchanges = from_tape(ONE_TURN)
    log = json.loads(har(exchanges))
    log["log"]["entries"] += [{"request": {"url": None}}, "placeholder"]
    assert parse_har(json.dumps(log)) == parse_har(har(exchanges))
    (record,) = caplog.records
    assert f"entry {len(exchanges) + 1}: " in record.getMessage()
    assert "placeholder" not in record.getMessage()


def test_entries_are_in_order_of_time_whatever_their_zones_and_after_a_byte_order_mark() -> None:
    log = json.loads(har(from_tape(ONE_TURN)))
    for each in log["log"]["entries"][::2]:
        each["startedDateTime"] = each["startedDateTime"].replace("T10", "T12").replace("Z", "+02:00")
    log["log"]["entries"].reverse()
    assert parse_har("\ufeff" + json.dumps(log)) == parse_har(har(from_tape(ONE_TURN)))


def test_a_chat_that_was_kept_ends_with_its_answer() -> None:
    (tape,) = parse_har(har(from_tape(ONE_TURN)[:-1]))
    assert tape.steps[-1].items() >= {"intent": None, "phase": "ANSWERED"}.items()


def test_a_stream_that_the_browser_left_out_ends_the_tape() -> None:
    exchanges = from_tape(ONE_TURN)
    exchanges[3]["response"]["content"] = {"size": 0}
    (tape,) = parse_har(har(exchanges))
    assert tape.steps[-1]["intent"]["kind"] == "FetchMessage"
    assert tape.steps[-1]["phase"] == "POLLING"


def test_a_request_without_a_reply_was_maybe_sent() -> None:
    exchanges = from_tape(ONE_TURN)[:2]
    exchanges[1]["response"] = {"status": 0, "headers": [], "content": {}}
    (tape,) = parse_har(har(exchanges))
    assert "MaybeSent" in str(tape)
    assert replay(tape) is None


def test_a_session_that_ran_out_ends_badly() -> None:
    exchanges = from_tape(ONE_TURN)[:2]
    exchanges[1]["response"]["status"] = 403
    (tape,) = parse_har(har(exchanges))
    assert events(tape, "Failed")[0]["error"] == {"type": "AuthenticationError", "status": 403}


def test_a_browser_that_asks_for_another_answer_ends_the_tape() -> None:
    exchanges = from_tape(ONE_TURN)
    exchanges[2]["request"]["postData"]["text"] = exchanges[2]["request"]["postData"]["text"].replace("5120", "5121")
    (tape,) = parse_har(har(exchanges))
    assert tape.steps[-1]["intent"]["kind"] == "RequestAssistant"


def test_no_cookie_of_the_browser_is_on_the_tape() -> None:
    assert "placeholder" not in str(parse_har(captured("happy_path"))[0])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no JSON", "this is not a HAR file"),
        ('{"log": {}}', "this is not a HAR file"),
        ("[" * 100_000, "this is not a HAR file"),
        (BROWSERS.read_text("utf-8"), "no chat was created in this HAR file"),
    ],
    ids=["text", "JSON", "deep", "without a chat"],
)
def test_what_has_no_conversation_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_har(text)


def test_a_har_file_is_no_tape(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl"
    path.write_text(captured("happy_path"), "utf-8")
    with pytest.raises(ValueError, match="line 1 of the tape: a tape must begin"):
        load_tapes(path)
