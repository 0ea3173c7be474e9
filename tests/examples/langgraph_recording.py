"""The requests by which the small server is compared with ``langgraph dev``, and what the latter replied.

``python -m tests.examples.langgraph_recording URL`` writes langgraph_recording.json anew. The server must have a graph
"echo" as docs/bindings.md shows it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TypeAlias, Union

import httpx

from oa_protocol import AnswerOptions, Credentials
from oa_protocol.engine.intents import HttpRequest
from tests.examples.langgraph_binding import LangGraph

RECORDING = Path(__file__).with_suffix(".json")
Value: TypeAlias = Union[dict[str, "Value"], list["Value"], str, int, float, bool, None]  # noqa: UP007

NOBODY = "00000000-0000-4000-8000-000000000000"
KEY = Credentials(token="none")


class Replies:
    """Sends the requests of one binding, and keeps what came: the status, and the body or the stream's events."""

    def __init__(self, url: str, http: httpx.Client) -> None:
        self.api = LangGraph(url, "echo")
        self.kept: dict[str, Value] = {}
        self._http = http

    def send(self, name: str, request: HttpRequest) -> bytes:
        """Send one request, and return its body."""
        reply = self._http.request(request.method, request.url, headers=request.headers, content=request.body)
        if reply.headers.get("content-type", "").startswith("text/event-stream"):
            body: Value = [event for event in reply.text.split("\r\n\r\n") if event and not event.startswith(":")]
        else:
            body = reply.json() if reply.content else None
        self.kept[name] = {"status": reply.status_code, "body": body}
        return reply.content

    def turn(self, name: str, chat_id: str, parent_id: str | None, prompt: str) -> str:
        """Send a prompt, run the graph and read its stream; return the run's id."""
        api = self.api
        sent = self.send(f"{name}: prompt", api.send_prompt(KEY, chat_id, parent_id, prompt))
        self.send(f"{name}: thread before the run", api.fetch_message(KEY, chat_id, ""))
        prompt_id = api.read_prompt_id(sent)
        asked = self.send(f"{name}: run", api.request_assistant(KEY, chat_id, prompt_id, AnswerOptions()))
        run_id = api.read_answer_id(asked)
        self.send(f"{name}: stream", api.open_stream(KEY, chat_id, run_id))
        self.send(f"{name}: thread", api.fetch_message(KEY, chat_id, run_id))
        self.send(f"{name}: runs", api.fetch_chat(KEY, chat_id))
        return run_id


def collect(url: str) -> dict[str, Value]:
    """Return the replies of the server at ``url``."""
    with httpx.Client(timeout=30) as http:
        replies = Replies(url, http)
        send, api = replies.send, replies.api
        chat_id = api.read_chat_id(send("create", api.create_chat(KEY)))
        send("runs of a new thread", api.fetch_chat(KEY, chat_id))
        first = replies.turn("first", chat_id, None, "Hello")
        send("second prompt", api.send_prompt(KEY, chat_id, first, "fail"))
        send("second prompt, sent twice", api.send_prompt(KEY, chat_id, first, "fail"))
        replies.turn("failing", chat_id, first, "fail")
        send("list", api.list_chats(KEY))
        send("models", api.list_models(KEY))
        send("delete", api.delete_chat(KEY, chat_id))
        send("delete again", api.delete_chat(KEY, chat_id))
        send("runs of no thread", api.fetch_chat(KEY, chat_id))
        send("no thread", api.fetch_message(KEY, chat_id, first))
        send("prompt to no thread", api.send_prompt(KEY, NOBODY, None, "Hello"))
        send("run of no thread", api.request_assistant(KEY, NOBODY, NOBODY, AnswerOptions()))
        send("stream of no run", api.open_stream(KEY, NOBODY, NOBODY))
        send("no path", HttpRequest("GET", f"{url}/nothing", ()))
        return replies.kept


def without_kwargs(value: Value) -> Value:
    """Return a reply without the field of a run that says, at length, how it was called."""
    if isinstance(value, dict):
        return {name: without_kwargs(inner) for name, inner in value.items() if name != "kwargs"}
    return [without_kwargs(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    RECORDING.write_text(json.dumps(without_kwargs(collect(sys.argv[1])), indent=1) + "\n", "utf-8")
