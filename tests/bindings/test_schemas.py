"""The JSON that servers send: what is read from it, and that nothing in it raises anything but ``UNREADABLE``."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_protocol.bindings import json as schemas
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.replies import UNREADABLE
from oa_protocol.engine.events import Answered, Message, PluginStep, Queued, Token, WorkerError
from oa_protocol.testing.strategies import json_values
from tests.captures import Recorded, every, scenario

BINDING = InferenceServer("http://oa.test")
READERS: dict[str, Callable[[bytes], object]] = {
    "created": BINDING.read_chat_id,
    "message": lambda body: BINDING.read_message(body, "a"),
    "chat": BINDING.read_chat,
    "chats": BINDING.read_chat_list,
    "models": BINDING.read_models,
    "event": BINDING.read_event,
}
VALID: dict[str, bytes] = {
    "created": b'{"id":"a"%s}',
    "message": b'{"id":"a","role":"assistant","state":"pending"%s}',
    "chat": b'{"id":"a","messages":[]%s}',
    "chats": b'{"chats":[]%s}',
    "models": b'[{"name":"a"%s}]',
    "event": b'{"event_type":"token","text":"a"%s}',
}


def lines_of(recorded: Recorded) -> list[bytes]:
    """The data of a recorded stream's events: servers write one line an event."""
    return [line.removeprefix(b"data: ") for line in recorded.body.split(b"\r\n") if line.startswith(b"data: {")]


STREAMS = [recorded for recorded in every() if recorded.step == "stream" and recorded.status == 200 and recorded.body]


def read(recorded: dict[str, object]) -> Message:
    """A message, as the standard library's JSON has it."""
    return Message(**{name: recorded[name] for name in Message.__struct_fields__})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.clause("OA-5.2")
@pytest.mark.parametrize("recorded", STREAMS, ids=str)
def test_every_recorded_event_is_read(recorded: Recorded) -> None:
    for line in lines_of(recorded):
        said = json.loads(line)
        found = BINDING.read_event(line)
        match said.pop("event_type"):
            case "token":
                assert found == Token(said["text"])
            case "pending":
                assert found == Queued(said["queue_position"], said["queue_size"])
            case "plugin_intermediate":
                del said["message"]
                assert found == PluginStep(**said)
            case "message":
                assert found == Answered(read(said["message"]))
            case "error":
                assert found == WorkerError(said["error"])
            case kind:
                pytest.fail(f"the recordings have an event of type {kind}")


def test_the_recordings_have_every_type_of_event() -> None:
    kinds: set[type[object]] = {type(BINDING.read_event(line)) for recorded in STREAMS for line in lines_of(recorded)}
    assert kinds == {Token, Queued, PluginStep, Answered, WorkerError}


def test_the_text_of_an_answer_is_its_messages_content() -> None:
    final = BINDING.read_event(lines_of(scenario("website", "happy_path")[3])[-1])
    assert isinstance(final, Answered)
    assert final.text == final.message.content
    assert final.text
    assert Answered(Message(id="a", role="assistant", state="complete")).text == ""


@pytest.mark.clause("OA-3.1")
@pytest.mark.parametrize(
    "recorded",
    [each for each in every() if each.status == 200 and each.body and each.step in ("message", "chat", "chats")],
    ids=str,
)
def test_every_recorded_message_chat_and_list_is_read(recorded: Recorded) -> None:
    said = recorded.json
    match recorded.step:
        case "message":
            assert BINDING.read_message(recorded.body, said["id"]) == read(said)
        case "chat":
            tail_id, messages = said["active_thread_tail_message_id"], [read(message) for message in said["messages"]]
            chat = BINDING.read_chat(recorded.body)
            assert (chat.id, chat.title, chat.messages) == (said["id"], said["title"], messages)
            assert list(chat.tree) == sorted(messages, key=lambda message: message.id)
            assert chat.tree.tail_id == tail_id
        case _:
            found = BINDING.read_chat_list(recorded.body)
            assert [(chat.id, chat.title) for chat in found.chats] == [(c["id"], c["title"]) for c in said["chats"]]
            assert found.next == said.get("next")


@pytest.mark.parametrize("api", ["website", "inference"])
def test_recorded_models_are_read(api: str) -> None:
    [recorded] = [each for each in every() if each.api == api and each.step == "models" and each.status == 200]
    assert [model.name for model in BINDING.read_models(recorded.body)] == [said["name"] for said in recorded.json]


def test_models_are_read() -> None:
    found = BINDING.read_models(
        b'[{"name":"OA","description":"","parameter_configs":[{"name":"k50","description":"Top-k",'
        b'"sampling_parameters":{"top_k":50,"top_p":0.95,"typical_p":null}}],"more":1},{"name":"_lorem"}]'
    )
    assert [model.name for model in found] == ["OA", "_lorem"]
    preset = found[0].parameter_configs[0].sampling_parameters
    assert preset == {"top_k": 50, "top_p": 0.95, "typical_p": None}
    assert schemas.SamplingParameters.of(preset).top_k == 50  # which takes no 50.0


@pytest.mark.clause("OA-5.5")
@pytest.mark.parametrize(
    "data",
    [
        b'{"event_type":"safe_prompt","safe_prompt":"a"}',
        b'{"event_type":"","text":"a"}',
        b'{"more":[{}],"event_type":"Token"}',
    ],
)
def test_an_event_of_an_unknown_type_is_known_as_such(data: bytes) -> None:
    assert BINDING.is_unknown_event(data)


@pytest.mark.clause("OA-5.10")
@pytest.mark.parametrize("data", [b"", b"{}", b'{"event_type":1}', b'{"event_type":"token"}', b"\xff"])
def test_data_that_is_no_event_is_no_unknown_one_either(data: bytes) -> None:
    assert not BINDING.is_unknown_event(data)


@pytest.mark.clause("OA-5.10")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"2026-11-22 08:33:18.087159",
        b"null",
        b"[]",
        b'"token"',
        b"{}",
        b'{"event_type":1}',
        b'{"event_type":null}',
        b'{"event_type":"token"}',
        b'{"event_type":"token","text":null}',
        b'{"event_type":"token","text":1}',
        b'{"event_type":"token","text":"\xff"}',
        b'{"event_type":"tok\xff"}',
        b'{"event_type":"token","text":"\\ud800"}',
        b'{"event_type":"token","text":"a"',
        b'{"event_type":"token","text":"a"}}',
        b'\xef\xbb\xbf{"event_type":"token","text":"a"}',
        b'{"event_type":"pending","queue_position":"1","queue_size":1}',
        b'{"event_type":"pending","queue_position":1e400,"queue_size":1}',
        b'{"event_type":"pending","queue_position":' + 5000 * b"9" + b',"queue_size":1}',
        b'{"event_type":"pending","queue_position":NaN,"queue_size":Infinity}',
        b'{"event_type":"message","message":null}',
        b'{"event_type":"message","message":{"id":"a"}}',
        b'{"event_type":"error"}',
    ],
)
def test_data_that_is_no_event_is_unreadable(data: bytes) -> None:
    with pytest.raises(UNREADABLE):
        BINDING.read_event(data)


@pytest.mark.clause("OA-5.10", "OA-6.11")
@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    "more", [b"NaN", b"Infinity", b'"\\ud800"', b"01", b"'a'"], ids=["NaN", "Infinity", "surrogate", "01", "quote"]
)
def test_a_field_that_is_bad_json_is_unreadable_though_no_struct_has_it(kind: str, more: bytes) -> None:
    with pytest.raises(UNREADABLE):
        READERS[kind](VALID[kind].replace(b"%s", b',"more":' + more))


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("more", [b"null", b"[[{}]]", b"-0.0e1", b'"\\ud83d\\ude00"', b'"\xff"', 5000 * b"9"])
def test_fields_that_are_not_known_are_ignored(kind: str, more: bytes) -> None:
    plain = VALID[kind].replace(b"%s", b"")
    assert READERS[kind](VALID[kind].replace(b"%s", b',"more":' + more)) == READERS[kind](plain)


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    assert BINDING.read_chat_id(b'{"id":"a","id":"b"}') == "b"
    assert BINDING.read_event(b'{"event_type":"token","text":"a","text":"b"}') == Token("b")


def test_surrogate_pairs_are_one_character() -> None:
    assert BINDING.read_event(b'{"event_type":"token","text":"\\ud83d\\ude00"}') == Token("😀")


@pytest.mark.clause("OA-5.10", "OA-6.11")
@pytest.mark.parametrize("kind", READERS)
@given(data=st.one_of(json_values().map(lambda value: json.dumps(value).encode()), st.binary(max_size=30)))
def test_whatever_a_server_sends_is_read_or_unreadable(kind: str, data: bytes) -> None:
    with suppress(*UNREADABLE):
        READERS[kind](data)


@pytest.mark.clause("OA-8.1")
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"detail":"Chat not found"}', "Chat not found"),
        (b'{"message":"Something went wrong"}', "Something went wrong"),
        (b'{"detail":"","message":"b"}', "b"),
        (b'{"detail":null,"message":"b"}', "b"),
        (
            b'{"detail":[{"loc":["body","sampling_parameters","max_new_tokens"],"msg":"not an allowed value"}]}',
            "body.sampling_parameters.max_new_tokens: not an allowed value",
        ),
        (
            b'{"message":[{"loc":["body",0],"msg":"a","type":"b"},{"loc":[],"msg":"c","type":"d"},{"msg":"e"}]}',
            "body.0: a; c; e",
        ),
        (b'{"detail":[]}', ""),
        (b'{"error":"no field of this protocol"}', ""),
        (b'{"detail":{"a":1}}', ""),
        (b"Internal Server Error", ""),
        (b"", ""),
        (b"\xff", ""),
    ],
    ids=lambda value: repr(value[:30]).replace("\\", ""),
)
def test_the_servers_words(body: bytes, words: str) -> None:
    assert BINDING.read_error(body) == words
