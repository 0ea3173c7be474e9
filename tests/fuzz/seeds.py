"""Valid inputs for the readers, which fuzzing begins with."""

from __future__ import annotations

import gzip
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.website import Website
from oa_protocol.client.journal import Journal
from oa_protocol.worker._hardware import hardware
from oa_protocol.worker.model_configs import MODEL_CONFIGS
from oa_protocol.worker.protocol import encode_hello
from tests.captures import every, scenario
from tests.tape.taping import CASES
from tests.tape.test_har import BROWSERS, captured

Seeds = list[bytes]

TURNS = [case for name, case in CASES.items() if name.startswith("one turn with")]
_DONE = {"create": 2, "prompt": 4, "request": 6, "stream": 8, "message": 8, "chat": 18, "chats": 18, "delete": 18}
"""How many steps of a turn are done before each request."""
STARTS = [(turn, done) for turn in TURNS for done in sorted(set(_DONE.values()))]


def event_streams() -> Seeds:
    return [each.body[:2000] for each in every() if each.step == "stream" and each.body]


def conversations() -> Seeds:
    """The replies of both servers in a conversation, each after the number of its place in ``STARTS``."""
    dates = b"retry-after: Sun, 22 Nov 2026 08:18:16 GMT\r\ndate: Sun, 22 Nov 2026 08:18:10 GMT\r\n"
    replies = [
        b"\x01HTTP/1.1 503 x\r\n%b\r\n" % dates,
        b"\x02HTTP/1.1 401 x\r\ncontent-length: 2\r\n\r\n{}",
        b'\x07HTTP/1.1 422 x\r\ntransfer-encoding: chunked\r\n\r\n1b\r\n{"detail": [{"msg": "bad"}]}\r\n0\r\n\r\n',
    ]
    for turn in TURNS:
        for each in scenario(turn.config["api"], "happy_path"):
            start = STARTS.index((turn, _DONE[each.step]))
            replies.append(bytes([start]) + f"HTTP/1.1 {each.status} x\r\ndate: x\r\n\r\n".encode() + each.body)
    return replies


def replies() -> Seeds:
    found = {(each.api, each.step, each.status): each.body for each in every() if each.step != "stream"}
    message = b'{"messages": [{"type": "ai", "content": [{"text": "a"}]}]}'
    return [
        *(body for body in found.values() if len(body) < 4000),
        b'{"thread_id": "x", "status": "idle", "values": %b}' % message,
        b'[{"run_id": "x", "status": "success", "metadata": {"prompt_id": null}}]',
        b"Mon, 01 Jan 2001 00:00:00 GMT",
    ]


def compressed_replies() -> Seeds:
    text = b'{"id": "06b02a54-89e8-7932-8000-0fb1fa73d8de"}' * 10
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return [
        gzip.compress(text) * 2,
        zlib.compress(text),
        raw.compress(text) + raw.flush(),
        text,
        gzip.compress(bytes(10**6)),
    ]


def cookies_files() -> Seeds:
    dated = '[{"name": "a", "value": "b", "domain": "oa.example.org", "expires": "%s"}]'
    dates = ("Mon, 01 Jan 2035 00:00:00 GMT", "2035-01-01T00:00:00Z", "2035-01-01", "Session")
    return [*(path.read_bytes() for path in BROWSERS.parent.iterdir()), *((dated % date).encode() for date in dates)]


def har_files() -> Seeds:
    return [captured("happy_path").encode(), captured("happy_path", coded=True).encode(), BROWSERS.read_bytes()]


def tapes() -> Seeds:
    return [text.encode() for text in map(str, CASES.values()) if len(text) < 6000]


def journals() -> Seeds:
    return [_journal(value) for value in ("NULL", "x'ff'", "''", "1", "'../..'", "1e999", "9223372036854775807")]


def _journal(value: str) -> bytes:
    """A journal whose last line has ``value`` in each column that can have it, as SQLite allows."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "journal")
        journal = Journal(path)
        journal.created(journal.creating(Website("http://oa.test"), "x"), "06b02a54-89e8-7932-8000-0fb1fa73d8de")
        line = journal.creating(InferenceServer("http://oa.test"), "x")
        journal.close()
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            for column in ("owner", "api", "base_url", "account", "chat_id", "sent_at", "settled_at"):
                database.execute(f"UPDATE OR IGNORE chats SET {column} = {value} WHERE line = ?", (line.line,))
        return path.read_bytes()


def results() -> Seeds:
    return [b'{"id":"a","text":"b","error":null}\n{"id":1,"text":"b","error":{"type":"x"}}\n{"id":']


def prompts_in_json() -> Seeds:
    return [b'{"id": 5, "prompt": "Hello", "sampling": {"top_k": 1}, "plugins": [{}]}\n{"prompt": "x"}\n']


def prompts_in_csv() -> Seeds:
    return [b'id,prompt,model\n1,"a ""b"", c",x\n2,d,\n', b"\xef\xbb\xbfprompt\r\nx\r\n"]


def work() -> Seeds:
    thread = b'{"messages": [{"role": "prompter", "content": "a"}]}'
    parameters = b'{"sampling_parameters": {"top_k": 1}, "seed": 1, "plugins": [{}]}'
    return [
        b'{"request_type": "work", "id": "x", "thread": %b, "parameters": %b}' % (thread, parameters),
        b'{"request_type": "ping", "id": "x"}',
        b'{"request_type": "error", "error": "x"}',
    ]


def completions() -> Seeds:
    last = b'{"choices": [{"delta": {"content": [{"text": "b"}]}, "finish_reason": "stop"}]}'
    return [
        b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": null}]}\n\ndata: %b\n\n' % last,
        b'{"error": {"message": "x"}, "detail": [1]}',
    ]


def requests() -> Seeds:
    found = {(each.api, each.step): each for each in every() if each.status == 200}
    sent = [(f"{each.method} {each.target[1:]}", each.sent or "") for each in found.values()]
    dates = "retry-after: Mon, 01 Jan 2001 00:00:00 GMT\ndate: Mon, 01 Jan 2001 00:00:00 GMT"
    return [
        *(f"{line}\ncontent-type: application/json; charset=utf-8\n\n{body}".encode() for line, body in sent),
        f"GET api/chat\n{dates}\n\n".encode(),
        b"GET api/chat\ncookie: next-auth.session-token.0=a; next-auth.session-token.1=b\nauthorization: Bearer x\n\n",
        b'GET api/chat\n\ndata: {"event_type": "message", "message": {}}\n',
        b"POST api/chat\ncontent-type: application/x-www-form-urlencoded\n\nchat_id=1&title=2",
    ]


def first_texts() -> Seeds:
    return [encode_hello(MODEL_CONFIGS["_lorem"], 1, hardware()).encode()]


def responses() -> Seeds:
    return [
        b'{"response_type": "token", "request_id": "x", "text": "a", "log_prob": null, "token_id": 1}',
        b'{"response_type": "generated_text", "request_id": "x", "text": "a", "finish_reason": "length"}',
    ]
