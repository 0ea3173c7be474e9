"""A small LangGraph server for tests: threads, runs and streams in memory, on loopback, and faults on demand.

It replies as ``langgraph dev`` does (langgraph-api 0.16.7); langgraph_recording.py is for comparing the two. A run has
no clock: it is over when its whole stream has been read, or after as many reads of its thread as its answer says.
"""

from __future__ import annotations

import json
import re
import threading
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, ClassVar, Self

Json = dict[str, Any]

_ID = "([^/?]+)"
ROUTES = [
    ("create", "POST", "/threads"),
    ("list", "POST", "/threads/search"),
    ("models", "POST", "/assistants/search"),
    ("prompt", "POST", f"/threads/{_ID}/state"),
    ("request", "POST", f"/threads/{_ID}/runs"),
    ("runs", "GET", f"/threads/{_ID}/runs"),
    ("stream", "GET", f"/threads/{_ID}/runs/{_ID}/stream"),
    ("thread", "GET", f"/threads/{_ID}"),
    ("delete", "DELETE", f"/threads/{_ID}"),
]


@dataclass
class Answer:
    """How a run goes.

    Attributes:
        pieces: what the model says, piece by piece; by default it repeats the prompt.
        error: what the graph fails with, after the pieces.
        cancelled: the run is cancelled, after the pieces.
        cut: the stream is dropped after as many pieces.
        reads: how many reads of the thread say that the run is not over yet.

    """

    pieces: tuple[str, ...] | None = None
    error: str = ""
    cancelled: bool = False
    cut: int | None = None
    reads: int = 0


@dataclass
class Run:
    run_id: str
    prompt_id: str
    answer: Answer
    status: str = "running"

    def public(self) -> Json:
        return {"run_id": self.run_id, "status": self.status, "metadata": {"prompt_id": self.prompt_id}}


@dataclass
class Thread:
    thread_id: str
    created_at: str
    metadata: Json
    status: str = "idle"
    messages: list[Json] | None = None
    error: Json | None = None
    runs: dict[str, Run] = field(default_factory=dict[str, Run])

    def public(self) -> Json:
        values = None if self.messages is None else {"messages": self.messages}
        shown = {"thread_id": self.thread_id, "created_at": self.created_at, "metadata": self.metadata}
        error = {} if values is None else {"error": self.error}
        return {**shown, "status": self.status, "values": values, **error}

    def look(self) -> None:
        """Let the run be over, if it was to take no longer than until now."""
        for run in self.runs.values():
            if run.status == "running" and run.answer.reads == 0:
                self.finish(run)
            run.answer.reads -= 1

    def finish(self, run: Run) -> None:
        answer = run.answer
        if answer.error:
            run.status = self.status = "error"
            self.error = {"error": "RuntimeError", "message": answer.error}
        elif answer.cancelled:
            run.status, self.status = "interrupted", "idle"
        else:
            run.status, self.status = "success", "idle"
            self.add({"type": "ai", "id": f"lc_run--{run.run_id}", "content": "".join(answer.pieces or ())})

    def add(self, message: Json) -> None:
        """Add a message, or replace the one that has its id."""
        messages = self.messages = self.messages or []
        index = next((index for index, old in enumerate(messages) if old["id"] == message["id"]), len(messages))
        messages[index : index + 1] = [message]


class Refusal(Exception):
    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail


@dataclass
class Fault:
    """What goes wrong with one request: it gets this reply, or none; before or after it is carried out."""

    reply: tuple[int, bytes] | None
    after: bool


class LangGraphServer:
    """Serves until its ``with`` block ends.

    Attributes:
        threads: what there is, by id.
        steps: the requests so far, by the names in ``ROUTES``.
        keys: the value of ``x-api-key`` in each of them.

    """

    def __init__(self) -> None:
        self.threads: dict[str, Thread] = {}
        self.steps: list[str] = []
        self.keys: list[str | None] = []
        self._answers: deque[Answer] = deque()
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_of_graphs": self}))
        self._serving = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._serving.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()  # waits for the handlers
        self._serving.join()

    def answers(self, *answers: Answer) -> None:
        """Say how the next runs go."""
        self._answers += answers

    def lose(self, step: str, *, after: bool = True) -> None:
        """Drop the connection of the next such request, after it is carried out or before."""
        self._faults[step].append(Fault(None, after))

    def refuse(self, step: str, status: int, body: bytes, *, after: bool = False) -> None:
        """Reply to the next such request with this, and don't carry it out, or only ``after`` that."""
        self._faults[step].append(Fault((status, body), after))

    def handle(self, step: str, ids: tuple[str, ...], body: Json) -> tuple[int, Any]:
        """Carry out a request, and return its reply."""
        with self._lock:
            reply: tuple[int, Any] = getattr(self, f"_{step}")(*ids, body)
            return reply

    def fault(self, step: str) -> Fault | None:
        faults = self._faults[step]
        return faults.popleft() if faults else None

    def run(self, thread_id: str, run_id: str) -> Run | None:
        thread = self.threads.get(thread_id)
        return thread.runs.get(run_id) if thread else None

    def end(self, thread_id: str, run: Run) -> None:
        with self._lock:
            if thread_id in self.threads and run.status == "running":
                self.threads[thread_id].finish(run)

    def _new_id(self, version: int) -> str:
        return f"01a22300-0000-{version}000-8000-{next(self._numbers):012x}"

    def _found(self, thread_id: str) -> Thread:
        if not re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", thread_id):
            raise Refusal(422, "Invalid thread ID: must be a UUID")
        if thread_id not in self.threads:
            raise Refusal(404, f"Thread with ID {thread_id} not found")
        return self.threads[thread_id]

    def _create(self, body: Json) -> tuple[int, Any]:
        thread = Thread(self._new_id(7), datetime.now(UTC).isoformat(), body.get("metadata", {}))
        self.threads[thread.thread_id] = thread
        return 200, thread.public()

    def _list(self, body: Json) -> tuple[int, Any]:
        wanted = body.get("metadata", {}).items()
        found = [thread for thread in self.threads.values() if wanted <= thread.metadata.items()]
        public = [thread.public() for thread in reversed(found)][: body.get("limit", 10)]
        return 200, [{name: thread[name] for name in body.get("select", thread)} for thread in public]

    def _models(self, _: Json) -> tuple[int, Any]:
        return 200, [{"assistant_id": self._new_id(5), "graph_id": "echo", "name": "echo", "description": None}]

    def _prompt(self, thread_id: str, body: Json) -> tuple[int, Any]:
        thread = self._found(thread_id)
        graph = thread.metadata.get("graph_id")
        if graph is None:
            raise Refusal(400, f"Thread '{thread_id}' has no assigned graph ID.")
        if graph != "echo":
            raise Refusal(404, f"Graph '{graph}' not found. Expected one of: ['echo']")
        if thread.status == "busy":
            raise Refusal(409, f"Thread {thread_id} has in-flight runs: {list(thread.runs)}")
        for message in body["values"]["messages"]:
            thread.add(message)
        thread.status = "interrupted"
        checkpoint = {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": self._new_id(6)}
        return 200, {"checkpoint": checkpoint, "configurable": checkpoint, "checkpoint_id": checkpoint["checkpoint_id"]}

    def _request(self, thread_id: str, body: Json) -> tuple[int, Any]:
        if thread_id not in self.threads:
            raise Refusal(404, "Thread or assistant not found.")
        if body["assistant_id"] != "echo":
            raise Refusal(422, f"Invalid assistant: '{body['assistant_id']}'.")
        thread = self.threads[thread_id]
        answer = self._answers.popleft() if self._answers else Answer()
        if answer.pieces is None:
            answer.pieces = ("You said: ", str((thread.messages or [{}])[-1].get("content")))
        run = Run(self._new_id(7), body["metadata"]["prompt_id"], answer)
        thread.runs[run.run_id] = run
        thread.status = "busy"
        return 200, {**run.public(), "status": "pending"}

    def _runs(self, thread_id: str, _: Json) -> tuple[int, Any]:
        thread = self._found(thread_id)
        thread.look()
        return 200, [run.public() for run in reversed(thread.runs.values())]

    def _thread(self, thread_id: str, _: Json) -> tuple[int, Any]:
        thread = self._found(thread_id)
        thread.look()
        return 200, thread.public()

    def _delete(self, thread_id: str, _: Json) -> tuple[int, Any]:
        del self.threads[self._found(thread_id).thread_id]
        return 204, None


class _Handler(BaseHTTPRequestHandler):
    server_of_graphs: ClassVar[LangGraphServer]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self._serve()

    do_GET = do_DELETE = do_POST  # noqa: N815 -- http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _serve(self) -> None:
        graphs = self.server_of_graphs
        size = int(self.headers.get("content-length", 0))
        body: Json = json.loads(self.rfile.read(size)) if size else {}
        step, ids = self._route()
        graphs.steps.append(step)
        graphs.keys.append(self.headers.get("x-api-key"))
        fault = graphs.fault(step)
        if fault and not fault.after:
            self._fail(fault)
            return
        if step == "stream":
            self._stream(*ids)
            return
        try:
            status, reply = graphs.handle(step, ids, body) if step else (404, {"detail": "Not Found"})
        except Refusal as refusal:
            status, reply = refusal.status, {"detail": refusal.detail}
        if fault:
            self._fail(fault)
        else:
            self._reply(status, b"" if reply is None else json.dumps(reply).encode())

    def _route(self) -> tuple[str, tuple[str, ...]]:
        path = self.path.partition("?")[0]
        for step, method, pattern in ROUTES:
            if self.command == method and (found := re.fullmatch(pattern, path)):
                return step, found.groups()
        return "", ()

    def _fail(self, fault: Fault) -> None:
        if fault.reply is None:
            self.close_connection = True
        else:
            self._reply(*fault.reply)

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if body:
            self.send_header("content-type", "application/json")
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, thread_id: str, run_id: str) -> None:
        graphs = self.server_of_graphs
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("connection", "close")  # a client would use a dropped one again otherwise
        self.end_headers()
        with suppress(OSError):  # the client may have gone
            run = graphs.run(thread_id, run_id)
            if run is None:
                self._event("error", {"error": "HTTPException", "message": "404: Run not found"})
            elif not self._run(thread_id, run):
                return
            self.wfile.write(b"0\r\n\r\n")

    def _run(self, thread_id: str, run: Run) -> bool:
        """Send the run's events; return whether the stream ends cleanly."""
        answer = run.answer
        self._event("metadata", {"run_id": run.run_id, "attempt": 1})
        for number, piece in enumerate(answer.pieces or ()):
            if number == answer.cut:
                return False
            chunk = {"content": piece, "type": "AIMessageChunk", "id": f"lc_run--{run.run_id}"}
            self._event("messages", [chunk, {"run_id": run.run_id, "langgraph_node": "answer"}])
        self.server_of_graphs.end(thread_id, run)
        if answer.error:
            self._event("error", {"error": "RuntimeError", "message": answer.error})
        return True

    def _event(self, kind: str, data: object) -> None:
        event = f"event: {kind}\r\ndata: {json.dumps(data)}\r\nid: 1-0\r\n\r\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
