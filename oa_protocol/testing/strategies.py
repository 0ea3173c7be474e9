"""Hypothesis strategies for everything that comes over the wire, right or wrong, and for whole conversations.

Strategies for JSON draw dictionaries and lists, as a server would send them. The others draw bytes, as they arrive.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from copy import copy
from typing import Any, Literal, cast

from hypothesis import strategies as st

from oa_protocol.bindings.base import Binding, Credentials
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.inputs import ReplyReceived
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.server import Abandon, Answer, Close, End, Fault, Reset, Scripted, Send, Step, StreamFault, WorkerError
from oa_protocol.server import Reply as ServerReply
from oa_protocol.tape import Recorder, Tape, parse_tapes
from oa_protocol.testing._model.invariants import Limits
from oa_protocol.testing._model.scenario import SORTS, Scenario
from oa_protocol.testing._model.simulation import Simulation
from oa_protocol.testing.error_table import ROWS
from oa_protocol.testing.playbook import Reply

__all__ = [
    "answers",
    "bad_ids",
    "chats",
    "chunkings",
    "event_streams",
    "faults",
    "ids",
    "json_values",
    "messages",
    "prompts",
    "replies",
    "spellings",
    "stream_events",
    "tapes",
]

Json = dict[str, object]
Api = Literal["website", "inference"]

_GARBAGE = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"<html>It works!</html>",
    b'{"id": 1}',
    b'{"id": "../account/"}',
    b"\xff",
    b"{",
]
_USUAL_STATUSES = [200, 201, 204, 301, 302, 400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504]
_EVENT_TYPES = ["token", "pending", "plugin_intermediate", "message", "error"]
_ROLES = ["prompter", "assistant"]
_ANSWER_STATES = ["pending", "in_progress", "complete", "aborted_by_worker", "cancelled", "timeout"]
_KEYS = [
    *("id", "title", "chats", "next", "messages", "role", "state", "parent_id", "content", "created_at"),
    *("event_type", "text", "queue_position", "queue_size", "message", "error", "current_plugin_thought"),
    *("detail", "loc", "msg", "name", "description", "parameter_configs", "sampling_parameters"),
]


# ---- ids, messages, chats


def ids() -> st.SearchStrategy[str]:
    """Draw ids as servers make them.

    They are UUIDs that begin with the time: 36 bits of seconds, and 24 bits of a second's fraction. So the greater one
    of two ids is the newer one (OA-3.2).

    >>> @given(ids())
    ... def test_an_id_can_be_sent(chat_id):
    ...     assert Website("http://oa.test").fetch_chat(Credentials(), chat_id).target.endswith(chat_id)
    >>> test_an_id_can_be_sent()
    """
    return _ids_since(0)


def _ids_since(ticks: int) -> st.SearchStrategy[str]:
    return st.builds(_id, st.integers(ticks, _LAST_TICK), st.integers(0, 2**48 - 1))


_LAST_TICK = 2**60 - 1


def _id(ticks: int, node: int) -> str:
    digits = f"{ticks >> 12:012x}7{ticks & 0xFFF:03x}8000{node:012x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _ticks(of: str) -> int:
    digits = of.replace("-", "")
    return int(digits[:12] + digits[13:16], 16)


def bad_ids() -> st.SearchStrategy[str]:
    """Draw texts that mustn't be sent as an id, because they aren't UUIDs in their canonical form (OA-2.6).

    >>> @given(bad_ids())
    ... def test_a_bad_id_is_refused(chat_id):
    ...     with pytest.raises(ValueError):
    ...         Website("http://oa.test").fetch_chat(Credentials(), chat_id)
    >>> test_a_bad_id_is_refused()
    """
    return ids().flatmap(
        lambda good: st.sampled_from(
            [
                "",
                "../account/",
                f"{good}/..",
                f"{good}\n",
                f" {good}",
                good.replace("-", ""),
                f"{{{good}}}",
                f"urn:uuid:{good}",
                good[:-1],
                f"{good}0",
                good.replace("-8", "-g"),
                good.replace("-8", "-\N{ARABIC-INDIC DIGIT EIGHT}"),
                f"{good}&hidden=true",
            ]
        )
    )


def prompts() -> st.SearchStrategy[str]:
    """Draw texts that a server can store: without NUL, and without lone surrogates (OA-4.4).

    >>> @given(prompts())
    ... def test_a_prompt_is_taken(text):
    ...     conversation = Conversation(Website("http://oa.test"))
    ...     conversation.handle(Prompt(text), 0.0)
    ...     assert not conversation.awaits_prompt
    >>> test_a_prompt_is_taken()
    """
    return st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


def messages(
    role: Literal["prompter", "assistant"] | None = None,
    state: str | None = None,
    parent_id: str | None = None,
    message_id: str | None = None,
) -> st.SearchStrategy[Json]:
    """Draw messages as a chat lists them (OA-3.1).

    A prompter message is in state ``manual``. An answer has content only if it is complete.

    Args:
        role: the role, or None for any.
        state: an answer's state, or None for any.
        parent_id: the parent's id, or None for any.
        message_id: the message's id, or None for any.

    >>> @given(messages("assistant", "complete"))
    ... def test_a_complete_answer_has_content(message):
    ...     assert isinstance(message["content"], str)
    >>> test_a_complete_answer_has_content()

    """
    own = ids() if message_id is None else st.just(message_id)
    roles = st.sampled_from(_ROLES) if role is None else st.just(role)
    states = st.sampled_from(_ANSWER_STATES) if state is None else st.just(state)
    parents = st.none() | ids() if parent_id is None else st.just(parent_id)
    return st.builds(_message, own, roles, states, parents, prompts())


def _message(message_id: str, role: str, state: str, parent_id: str | None, content: str) -> Json:
    state = "manual" if role == "prompter" else state
    content_or_none = content if state in ("manual", "complete") else None
    return {"id": message_id, "role": role, "state": state, "parent_id": parent_id, "content": content_or_none}


@st.composite
def chats(draw: st.DrawFn, chat_id: str | None = None, message_id: str | None = None) -> Json:
    """Draw chats with their messages, which are a tree of prompts and answers, in any order (OA-3.2).

    ``chat_id`` is the chat's id, or None for any. ``message_id`` is the id of one of its messages, or None.

    >>> @given(chats())
    ... def test_a_prompt_is_never_under_another_prompt(chat):
    ...     roles = {message["id"]: message["role"] for message in chat["messages"]}
    ...     parents = [roles.get(m["parent_id"]) for m in chat["messages"] if m["role"] == "prompter"]
    ...     assert set(parents) <= {None, "assistant"}
    >>> test_a_prompt_is_never_under_another_prompt()
    """
    # If all other messages are newer than the given one, that one is the first prompt.
    since = 0 if message_id is None else draw(st.sampled_from([0, _ticks(message_id)]))
    any_id, *message_ids = draw(st.lists(_ids_since(since), min_size=1, max_size=9, unique=True))
    if message_id is not None:
        message_ids.append(message_id)
    tree: list[Json] = []
    places: list[tuple[str, str | None]]
    for own in sorted(set(message_ids)):
        # An answer follows any prompt. A prompt follows a complete answer, except for the first one.
        places = [("assistant", str(m["id"])) for m in tree if m["role"] == "prompter"]
        places += [("prompter", str(m["id"])) for m in tree if (m["role"], m["state"]) == ("assistant", "complete")]
        role, parent_id = draw(st.sampled_from(places)) if places else ("prompter", None)
        state = draw(st.sampled_from(_ANSWER_STATES))
        tree.append(_message(own, role, state, parent_id, draw(prompts())))
    return {
        "id": any_id if chat_id is None else chat_id,
        "title": draw(st.none() | prompts()),
        "messages": draw(st.permutations(tree)),
    }


def json_values() -> st.SearchStrategy[Any]:
    """Draw any JSON that a broken server may send.

    Some of it would be right, except that one part is missing or is something else. The rest is random JSON with the
    keys and the words of this protocol. There is no NaN and no infinity, because JSON has none.

    >>> @given(json_values())
    ... def test_whatever_the_reply_nothing_is_raised(value):
    ...     conversation = Conversation(Website("http://oa.test"), Credentials(token="secret"))
    ...     playbook = play(conversation) >> Prompt("Hello") << CreateChat
    ...     (playbook >> Reply(200, json.dumps(value))).drop_events()
    >>> test_whatever_the_reply_nothing_is_raised()
    """
    right = messages() | chats() | stream_events() | st.sampled_from([_CHAT_LIST, _MODELS, _ERROR])
    return right.flatmap(_damaged)


_CHAT_LIST: Json = {"chats": [{"id": "06b02a54-89e8-7932-8000-0fb1fa73d8de", "title": None}], "next": "f"}
_MODELS = [{"name": "OA_SFT_Llama_30B_6", "parameter_configs": [{"name": "k50", "sampling_parameters": {"top_k": 50}}]}]
_ERROR: Json = {"detail": [{"loc": ["body", "content"], "msg": "field required", "type": "value_error.missing"}]}


def _wild_json() -> st.SearchStrategy[Any]:
    numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    words = st.sampled_from([*_EVENT_TYPES, *_ROLES, "manual", *_ANSWER_STATES, "Chat not found"])
    return st.recursive(
        st.none() | st.booleans() | numbers | st.text(max_size=5) | words | ids(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=5),
        max_leaves=10,
    )


@st.composite
def _damaged(draw: st.DrawFn, value: object) -> object:
    damaged: Any = copy(value)
    parts: list[Any] = []
    if isinstance(value, dict):
        parts = list(cast("Json", value))
    elif isinstance(value, list):
        parts = list(range(len(cast("list[object]", value))))
    if not parts or draw(st.booleans()):
        return draw(_wild_json())
    part = draw(st.sampled_from(parts))
    if draw(st.booleans()):
        del damaged[part]
    else:
        damaged[part] = draw(_damaged(damaged[part]))
    return damaged


# ---- the stream


def stream_events(answer: Json | None = None) -> st.SearchStrategy[Json]:
    """Draw events of a stream, of every type that servers send.

    Args:
        answer: the message of a final event, or None for any.

    >>> @given(stream_events())
    ... def test_an_event_has_a_type(event):
    ...     assert event["event_type"] in {"token", "pending", "plugin_intermediate", "message", "error"}
    >>> test_an_event_has_a_type()

    """
    finals = messages("assistant") if answer is None else st.just(answer)
    return _tokens() | _pendings() | _plugin_steps() | finals.map(_final) | _errors()


def _tokens() -> st.SearchStrategy[Json]:
    texts = st.builds(str.format, st.sampled_from(["{}", "{} ", " {}"]), prompts())
    return texts.map(lambda text: {"event_type": "token", "text": text})


def _pendings() -> st.SearchStrategy[Json]:
    numbers = st.fixed_dictionaries({"queue_position": st.integers(0, 99), "queue_size": st.integers(0, 99)})
    return numbers.map(lambda fields: {"event_type": "pending", **fields})


def _plugin_steps() -> st.SearchStrategy[Json]:
    fields = st.fixed_dictionaries({}, optional={f"current_plugin_{name}": st.none() | prompts() for name in _PLUGIN})
    return fields.map(lambda drawn: {"event_type": "plugin_intermediate", **drawn})


_PLUGIN = ("thought", "action_taken", "action_input", "action_response")


def _final(message: Json) -> Json:
    return {"event_type": "message", "message": message}


def _errors() -> st.SearchStrategy[Json]:
    return prompts().map(lambda words: {"event_type": "error", "error": words, "message": None})


@st.composite
def answers(draw: st.DrawFn, message_id: str | None = None) -> list[Json]:
    """Draw all events of an answer: pending events, tokens, plugin steps, and a final message or an error.

    The final text is that of the tokens, or continues it, or contradicts it. The white space at its ends may be
    missing, because workers strip it (OA-5.6). ``message_id`` is the id of the final message, or None for any.

    >>> @given(answers())
    ... def test_only_the_last_event_ends_an_answer(events):
    ...     *others, last = [event["event_type"] for event in events]
    ...     assert last in {"message", "error"} and not {"message", "error"} & set(others)
    >>> test_only_the_last_event_ends_an_answer()
    """
    events = draw(st.lists(_pendings(), max_size=3)) + draw(st.lists(_tokens() | _plugin_steps(), max_size=6))
    if draw(st.integers(0, 4)) == 4:
        return [*events, draw(_errors())]
    streamed = "".join(str(event.get("text", "")) for event in events)
    content = draw(st.just(streamed) | prompts().map(streamed.__add__) | prompts())
    if draw(st.booleans()):
        content = content.strip()
    answer_id = draw(ids()) if message_id is None else message_id
    return [*events, _final(_message(answer_id, "assistant", "complete", draw(ids()), content))]


def spellings(payloads: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    r"""Draw the different forms in which a stream with these payloads may legally arrive (OA-5.2).

    They may have CR, LF and CR LF as line ends, even mixed; a byte order mark, comments, both kinds of pings, unknown
    fields, an explicit event type, no space after the colon, several lines in a payload, and an end within an event.

    Raises:
        ValueError: a payload contains CR. No stream has such a payload, because a decoder joins its lines with LF.

    >>> @given(spellings([b"1", b"2\n3"]).flatmap(chunkings))
    ... def test_a_decoder_finds_the_payloads_in_each(chunks):
    ...     decoder = SSEDecoder(limit=1000)
    ...     assert [payload for chunk in chunks for payload in decoder.feed(chunk)] == [b"1", b"2\n3"]
    >>> test_a_decoder_finds_the_payloads_in_each()

    """
    for payload in payloads:
        if b"\r" in payload:
            raise ValueError(f"no stream can have a payload that contains CR: {payload!r}")
    return _spellings(payloads)


@st.composite
def _spellings(draw: st.DrawFn, payloads: Sequence[bytes]) -> bytes:
    lines: list[bytes] = []
    for payload in payloads:
        lines += draw(st.lists(_NOISE, max_size=2).map(lambda blocks: [line for block in blocks for line in block]))
        lines += draw(st.lists(st.sampled_from([b"event: message", b"id: 7", b": comment", b"unknown"]), max_size=1))
        lines += [_data_line(line, draw(st.booleans())) for line in payload.split(b"\n")] + [b""]
    lines += draw(st.sampled_from([[], [b"data: cut"], [b"event: message", b"data: cut"]]))
    end = b""
    spelled = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    for line in lines:
        # An empty line that ends with LF, after one that ends with CR, would be read as the second half of CR LF.
        end = draw(st.sampled_from([b"\r\n", b"\r"] if end == b"\r" and not line else [b"\r\n", b"\n", b"\r"]))
        spelled += line + end
    return spelled


_NOISE: st.SearchStrategy[list[bytes]] = st.sampled_from(
    [
        [b""],
        [b": ping - 2026-11-22 08:50:49.981012", b""],
        [b"event: ping", b"data: 2026-11-22 08:33:18.087159", b""],
        [b"id: 7", b""],
        [b"retry: 10"],
    ]
)


def _data_line(line: bytes, space: bool) -> bytes:
    return b"data: " + line if space or line.startswith(b" ") else b"data:" + line


def event_streams() -> st.SearchStrategy[bytes]:
    """Draw the bytes of event streams, legal or not: answers in any form, broken lines, unknown types, random bytes.

    >>> @given(event_streams().flatmap(chunkings))
    ... def test_a_decoder_takes_whatever_comes(chunks):
    ...     decoder = SSEDecoder(limit=1_000_000)
    ...     for chunk in chunks:
    ...         list(decoder.feed(chunk))
    >>> test_a_decoder_takes_whatever_comes()
    """
    payloads = answers().map(lambda events: [json.dumps(event).encode() for event in events])
    return st.one_of(payloads.flatmap(spellings), _wild_streams(), _usual_streams(), st.binary(max_size=60))


_TEXTS = st.one_of(
    st.just(b""),
    st.just(b'{"event_type": "token", "text": "Adipisci "}'),
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8).map(str.encode),
    st.sampled_from([b" two spaces", b"a: b", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\xff\xc3", b"\x00", "é😀".encode()]),
)


def _wild_streams() -> st.SearchStrategy[bytes]:
    names = st.sampled_from(
        [b"data", b"data", b"data", b"event", b"id", b"retry", b"", b"Data", b"datas", b"\xef\xbb\xbfdata"]
    )
    colons = st.sampled_from([b": ", b":", b":  ", b": \t"])
    lines = st.one_of(
        st.just(b""),
        st.just(b""),
        st.sampled_from([b"event: message", b"event:message", b"event: ping", b"event", b"event: ", b"event: \xff"]),
        st.sampled_from([b"data", b"data: ", b"id", b"retry: 10", b":", b": ping - 2026-11-22 08:50:49.981012"]),
        st.tuples(names, colons, _TEXTS).map(b"".join),
    )
    marks = st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf", b"\xef\xbb"])
    ended = st.tuples(lines, st.sampled_from([b"\r\n", b"\n", b"\r"])).map(b"".join)
    return st.tuples(marks, st.lists(ended, max_size=25).map(b"".join), st.just(b"") | lines).map(b"".join)


def _usual_streams() -> st.SearchStrategy[bytes]:
    events = st.one_of(
        _TEXTS.filter(lambda text: b"\r" not in text).map(lambda text: b"data: " + text + b"\r\n\r\n"),
        st.just(b'data: {"event_type": "token", "text": "a"}\r\n\r\n'),
        st.just(b"event: ping\r\ndata: 2026-11-22 08:33:18.087159\r\n\r\n"),
        st.just(b": ping - 2026-11-22 08:50:49.981012\r\n\r\n"),
        st.sampled_from(_ALMOST_USUAL),
    )
    return st.lists(events, max_size=15).map(b"".join)


_ALMOST_USUAL = [
    b"data: a\nb\r\n\r\n",
    b"data: a\rb\r\n\r\n",
    b"data: a\r\r\n\r\n",
    b"data: a\r\n\r\n\n",
    b"data: a\r\n\r\n\r\n\r\n",
    b"data: a\r\ndata: b\r\n\r\n",
    b"data: a\n\r\n",
    b"data:a\r\n\r\n",
    b" data: a\r\n\r\n",
    b"id: 1\r\ndata: a\r\n\r\n",
]


@st.composite
def chunkings(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Draw ways to cut ``data`` into chunks, including one chunk for each byte or event. Chunks may be empty.

    The simplest way has no cuts, so a failure that doesn't depend on them is shown with one chunk.

    >>> @given(chunkings(b"data: 1"))
    ... def test_nothing_is_lost(chunks):
    ...     assert b"".join(chunks) == b"data: 1"
    >>> test_nothing_is_lost()
    """
    match draw(st.sampled_from(["anywhere", "event by event", "byte by byte"])):  # Hypothesis shrinks to the first one.
        case "anywhere":
            cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
        case "event by event":
            cuts = [end.end() for end in _EVENT_END.finditer(data)]
        case _:
            cuts = list(range(1, len(data)))
    # This often keeps all cuts. Fewer are simpler, so Hypothesis shrinks to the cuts that a failure needs.
    last, most = (draw(st.integers(0, 2 * len(cuts))) for _ in range(2))
    cuts = cuts[max(0, len(cuts) - last) :][:most]
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


_EVENT_END = re.compile(rb"(?:\r\n|\r(?!\n)|\n){2}")
"""Two line ends, each of which may be CR, LF or CR LF."""


# ---- servers


def replies(api: Api, chat_id: str | None = None, message_id: str | None = None) -> st.SearchStrategy[ReplyReceived]:
    """Draw replies to any request: right ones, every error that servers are known to send, and garbage (OA-8.3).

    Args:
        api: the API.
        chat_id: your chat's id. Some of the right replies are about your chat, others about other ones.
        message_id: your message's id, likewise.

    >>> @given(replies("website"))
    ... def test_whatever_the_reply_to_delete_the_conversation_goes_on_or_ends(reply):
    ...     CHAT = "06b02a54-89e8-7932-8000-0fb1fa73d8de"
    ...     playbook = play(Conversation(Website("http://oa.test"), Credentials(token="secret"), chat_id=CHAT))
    ...     playbook = (playbook >> Close(drain=False)).drop_events() << DeleteChat
    ...     conversation = (playbook >> reply).drop_events().conversation
    ...     assert conversation.is_over or conversation.next_intent(0.0) or conversation.deadline
    >>> test_whatever_the_reply_to_delete_the_conversation_goes_on_or_ends()

    """
    own_chat, own_message = ([] if own is None else [own] for own in (chat_id, message_id))
    right = st.one_of(
        _some_id(own_chat + own_message).map(_created),
        *(messages(message_id=own) for own in [None, *own_message]),
        *(messages("assistant", "complete", message_id=own) for own in own_message),
        *(chats(chat_id, own) for own in [None, *own_message]),
        st.builds(_chat_list, st.lists(_some_id(own_chat), max_size=3, unique=True), st.none() | ids()),
        st.just(b""),
    )
    errors = st.sampled_from([Reply(row.status, row.body) for row in ROWS if row.api == api])
    headers: st.SearchStrategy[dict[str, str]] = st.sampled_from(
        [{}, {"retry-after": "1"}, {"retry-after": "never"}, {"location": "/elsewhere"}]
    )
    bare = st.builds(Reply, st.sampled_from(_USUAL_STATUSES), st.just(b""), headers)
    odd = st.builds(Reply, st.integers(200, 599), st.sampled_from(_GARBAGE), headers)
    return st.builds(Reply, st.just(200), right) | errors | bare | odd


def _some_id(known: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(known) | ids() if known else ids()


def _created(chat_id: str) -> Json:
    return {"id": chat_id}


def _chat_list(chat_ids: list[str], cursor: str | None) -> Json:
    newest_first = sorted(chat_ids, reverse=True)
    return {"chats": [{"id": chat_id, "title": None} for chat_id in newest_first], "next": cursor}


FAULTY: tuple[Step, ...] = ("create", "prompt", "request", "message", "chat", "list", "models", "delete")
"""The steps of a client's requests. The stream isn't one of them, because it has other faults."""


def faults() -> st.SearchStrategy[Scripted]:
    """Draw behaviours of the embedded server, for ``Server.script``.

    A client that doesn't read the message waits forever on an ``Abandon``. So put ``anyio.fail_after(10)`` around your
    program, and let ``TimeoutError`` fail the test. No other of these behaviours makes a client wait forever.

    >>> @given(st.lists(faults(), max_size=3))
    ... def test_a_server_can_be_made_to_behave_so(behaviours):
    ...     server = Server()
    ...     server.script(*behaviours)
    ...     assert server.unused_faults == tuple(behaviours)
    >>> test_a_server_can_be_made_to_behave_so()
    """
    times = st.integers(1, 2)
    cut = st.sampled_from([Reset(), Close()])
    reply = st.builds(ServerReply, st.sampled_from([200, 302, 401, 403, 404, 429, 500, 503]), st.sampled_from(_GARBAGE))
    actions = cut | st.just(End()) | st.builds(Send, event_streams())
    endings = st.sampled_from([WorkerError(), Abandon("cancelled"), Abandon("timeout")])
    pieces = st.lists(prompts(), max_size=5).map(tuple)
    return st.one_of(
        st.builds(Fault, st.sampled_from(FAULTY), before=cut | reply, times=times),
        st.builds(Fault, st.sampled_from(FAULTY), after=cut | reply, times=times),
        st.builds(Fault, st.just("events"), before=cut | reply, times=times),
        st.builds(StreamFault, st.integers(0, 4), actions, times=times),
        st.builds(Answer, pieces, st.none() | prompts(), st.integers(0, 3), st.none() | endings),
    )


# ---- whole conversations


@st.composite
def tapes(draw: st.DrawFn, binding: Binding) -> Tape:
    """Draw tapes of whole conversations, from their beginning to their end, with any owner, network and server.

    >>> @given(tapes(Website("http://oa.test")))
    ... def test_the_engine_does_what_it_did(tape):
    ...     assert replay(tape) is None
    >>> test_the_engine_does_what_it_did()
    """
    file = io.StringIO()
    limits = Limits(1, Timeouts(answer=120.0), Cleanup(attempts=2))

    def make(credentials: Credentials | None) -> Conversation:
        return Recorder(
            binding, credentials, retries=limits.retries, timeouts=limits.timeouts, cleanup=limits.cleanup, tape=file
        )

    scenario = Scenario(Simulation.new(make, limits, faults=3, turns=2, credentials=draw(st.booleans())))
    scenario.begin(draw(st.integers(0, 20)))
    for _ in range(draw(st.integers(0, 3))):
        possible = list(filter(scenario.can_happen, SORTS))
        if possible:
            scenario.happen(draw(st.sampled_from(possible)), draw(st.integers(0, 31)))
            scenario.go_well(draw(st.integers(0, 9)))
    scenario.leave()
    (tape,) = parse_tapes(file.getvalue())
    return tape
