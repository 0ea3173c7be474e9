"""How a case is written down: step by step, each method a step or several, and what must come of it.

It knows how requests are spelled (OA-1.1, OA-2.2 to OA-2.4, OA-4.5), and keeps in mind which ids and credentials are
the current ones, what time it is and which timers run, so that a case says only what it is about. Otherwise it doesn't
know what an engine makes of anything.
"""

from __future__ import annotations

import json
from typing import Any, Self

from oa_protocol.engine.inputs import (
    Abandon,
    Close,
    CredentialsFound,
    ExchangeFailed,
    Input,
    Interrupted,
    Keep,
    Prompt,
    Regenerate,
    ReplyReceived,
    StreamData,
    StreamEnded,
    StreamOpened,
    TimePassed,
)
from tests.request_table import REQUESTS, STEPS, Api

from .timers import Timers

Json = dict[str, Any]
Bytes = str | Json | list[Any]

BOTH: tuple[Api, ...] = ("website", "inference")

CHAT = "06b02a53-f28e-708d-8000-044bde7b4953"
PROMPT = "06b02a53-f2ad-71f3-8000-f5d0e5605120"
ANSWER = "06b02a53-f2e8-7d17-8000-1b6ef2482de9"
PROMPT_2 = "06b02a54-1b2d-7a01-8000-5a0c6e1f0a11"
ANSWER_2 = "06b02a54-1b5e-7c42-8000-7f3d2b9c4e22"
OLDER = "06b02a50-0000-7000-8000-000000000001"
NEWER = "06b02a59-0000-7000-8000-000000000002"

BUSY = "The server is currently busy. Please try again later."
ISE = "Internal Server Error"
SAMPLING: Json = {
    "top_k": 50,
    "top_p": None,
    "typical_p": None,
    "temperature": 0.35,
    "repetition_penalty": 1.1111111111111112,
    "max_new_tokens": 1024,
}

CREDENTIALS: dict[Api, Json] = {
    "website": {"cookies": {"next-auth.session-token": "s1"}},
    "inference": {"token": "t1"},
}
FRESH: dict[Api, Json] = {"website": {"cookies": {"next-auth.session-token": "s2"}}, "inference": {"token": "t2"}}

_CLEANING_UP = ("DRAINING", "DELETING", "DELETE_UNCLEAR")


# ---- what a server says


def prompter(message_id: str = PROMPT, content: str = "Hello", parent_id: str | None = None) -> Json:
    return {"id": message_id, "parent_id": parent_id, "role": "prompter", "state": "manual", "content": content}


def assistant(state: str, content: str | None = None, message_id: str = ANSWER, parent_id: str = PROMPT) -> Json:
    return {"id": message_id, "parent_id": parent_id, "role": "assistant", "state": state, "content": content}


def chat(*messages: Json) -> Json:
    return {"id": CHAT, "title": None, "messages": list(messages)}


def page(*chat_ids: str, following: str | None = None) -> Json:
    return {"chats": [{"id": chat_id, "title": None} for chat_id in chat_ids], "next": following}


def words(api: Api, said: object) -> Json:
    return {"message" if api == "website" else "detail": said}


def sse(*payloads: Json) -> str:
    """Events as the servers spell them."""
    return "".join(f"data: {json.dumps(payload)}\r\n\r\n" for payload in payloads)


def a_token(text: str) -> Json:
    return {"event_type": "token", "text": text}


def a_pending(position: int = 0, size: int = 1) -> Json:
    return {"event_type": "pending", "queue_position": position, "queue_size": size}


def the_end(content: str | None, state: str = "complete", message_id: str = ANSWER, parent_id: str = PROMPT) -> Json:
    return {"event_type": "message", "message": assistant(state, content, message_id, parent_id)}


# ---- what an engine emits


def emitted(kind: str, **fields: Any) -> Json:
    return {"type": kind, **fields}


def token(text: Any) -> Json:
    return emitted("Token", text=text)


def queued(position: int = 0, size: int = 1) -> Json:
    return emitted("Queued", queue_position=position, queue_size=size)


def answered(text: Any, message_id: str = ANSWER) -> Json:
    return emitted("Answered", message_id=message_id, text=text)


def corrected(text: str, *, cut: bool) -> Json:
    return emitted("Corrected", text=text, cut=cut)


def failed(kind: str, **fields: Any) -> Json:
    return emitted("Failed", error={"type": kind, **fields})


def leaked(*chat_ids: str | None) -> Json:
    """Chats by their ids. None is a chat whose id, and the server's time, are not known."""
    return windows(*((chat_id, None, None) for chat_id in chat_ids))


def windows(*records: tuple[str | None, str | None, str | None]) -> Json:
    return emitted(
        "Leaked",
        leaked=[
            {"chat_id": chat_id, "not_before": not_before, "not_after": not_after}
            for chat_id, not_before, not_after in records
        ],
    )


CREATED = emitted("Created", chat_id=CHAT)
PROMPTED = emitted("Prompted", message_id=PROMPT)
REQUESTED = emitted("Requested", message_id=ANSWER)
DELETED = emitted("Deleted", chat_id=CHAT)
KEPT = emitted("Kept", chat_id=CHAT)
NEVER_CREATED = emitted("NeverCreated")


def happened(kind: type[Input], **fields: Any) -> Json:
    """An input, by the struct that the engine takes."""
    return {"type": kind.__name__, **fields}


class Case:
    """A case, as it is being written: its first line, and its steps so far.

    In each method ``to`` is the phase that the step leads to, if it leads to another one.
    """

    def __init__(
        self,
        api: Api,
        name: str,
        *clauses: str,
        raises: str | None = None,
        credentials: Json | None = None,
        **config: Any,
    ) -> None:
        self.api: Api = api
        self._credentials = CREDENTIALS[api] if credentials is None else credentials
        self._base_url: str = config.pop("base_url", "http://oa.example.org")
        head: Json = {"api": api, "base_url": self._base_url}
        self._base_url = config.pop("normal_url", self._base_url)
        if self._credentials:
            head["credentials"] = self._credentials
        self._options: Json = config.get("options", {})
        self.name = name
        self.clauses = clauses
        self._head: Json = {"clause": list(clauses), "name": name, "config": head | config}
        if raises is not None:
            self._head["raises"] = raises
        self._timers = Timers(config.get("timeouts", {}), config.get("cleanup", {}))
        self._phase = "OPENING" if "chat_id" in config else "START"
        self._chat_id = CHAT
        self._prompt: str = ""
        self._parent: str | None = None
        self._prompt_id = PROMPT
        self._message_id = ANSWER
        self._steps: list[Json] = []

    def __str__(self) -> str:
        return "".join(f"{json.dumps(line)}\n" for line in (self._head, *self._steps))

    def _write(self, done: Json, expected: Json) -> Self:
        now, deadline = round(self._timers.now, 6), self._timers.deadline(self._phase)
        self._steps.append({"now": now, **done, **expected, "phase": self._phase, "deadline": deadline})
        return self

    # ---- what the engine must ask for

    def asks(self, kind: str, *, after: str = "") -> Self:
        """The engine asks for this exchange, once its pause is over; for the page of a list ``after`` a cursor."""
        if self._timers.is_pausing:
            self.asks_nothing()
            self._timers.resumes()
        method, _, target = REQUESTS[self.api][STEPS[kind]].partition(" ")
        target += f"?after={after}" if after else ""
        intent: Json = {
            "kind": kind,
            "method": method,
            "url": self._base_url + target.format(chat_id=self._chat_id, message_id=self._message_id),
            "accept-encoding": "identity",
        }
        if cookies := self._credentials.get("cookies"):
            intent["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        if (bearer := self._credentials.get("token")) is not None:
            intent["authorization"] = f"Bearer {bearer}"
        body = self._body(kind)
        if body is not None:
            intent |= {"content-type": "application/json", "body": body}
        return self._asked(intent | {"shielded": kind == "CreateChat" or self._phase in _CLEANING_UP})

    def _body(self, kind: str) -> Json | None:
        where: Json = {"chat_id": self._chat_id} if self.api == "website" else {}
        match kind:
            case "CreateChat":
                return {}
            case "SendPrompt":
                return where | {"parent_id": self._parent, "content": self._prompt}
            case "RequestAssistant":
                options = dict(self._options)
                return {
                    **where,
                    "parent_id": self._prompt_id,
                    "model_config_name": options.pop("model", "OA_SFT_Llama_30B_6"),
                    "sampling_parameters": SAMPLING | options.pop("sampling", {}),
                    "plugins": options.pop("plugins", []),
                    **options,
                }
            case _:
                return None

    def asks_nothing(self) -> Self:
        self._timers.asks_nothing(self._phase)
        return self._write({}, {"intent": None})

    def asks_for_credentials(self, *, refused: bool = False) -> Self:
        return self._asked({"kind": "LoadCredentials", "refused": refused})

    def closes_stream(self) -> Self:
        """The engine has the stream closed, and it is."""
        return self.closing_stream().ends()

    def closing_stream(self) -> Self:
        return self._asked({"kind": "CloseStream"})

    def _asked(self, intent: Json) -> Self:
        self._timers.asks(intent["kind"])
        return self._write({}, {"intent": intent})

    # ---- what happens

    def step(self, done: Json, *events: Json, to: str | None = None) -> Self:
        if to is not None:
            self._phase = to
            self._timers.moves(to)
        if any(event["type"] == "Prompted" for event in events):
            self._timers.is_prompted()
        return self._write({"input": done}, {"events": list(events)} if events else {})

    def refuses(self, done: Json, error: str = "LocalProtocolError") -> Self:
        """The engine refuses the input, and stays as it was."""
        return self._write({"input": done}, {"raises": error})

    def pauses(self, seconds: float) -> Self:
        """After the last step the engine waits so long before it asks for anything."""
        self._timers.pauses(seconds)
        self._steps[-1]["deadline"] = self._timers.deadline(self._phase)
        return self

    def later(self, seconds: float) -> Self:
        """What follows happens so much later."""
        self._timers.now += seconds
        return self

    def time_passes(self, *events: Json, to: str | None = None) -> Self:
        """The deadline comes."""
        self._timers.come(self._phase)
        return self.step(happened(TimePassed), *events, to=to)

    def prompt(self, text: str = "Hello", *, after: str | None = None) -> Self:
        self._prompt = text
        if after is None:
            return self.step(happened(Prompt, text=text))
        self._parent = after
        return self.step(happened(Prompt, text=text, after=after))

    def regenerate(self, prompt_id: str | None = None) -> Self:
        """The owner asks for another answer, whose id is ``ANSWER_2``."""
        self._prompt_id, self._message_id = prompt_id or self._prompt_id, ANSWER_2
        self._timers.is_prompted()
        named = {} if prompt_id is None else {"prompt_id": prompt_id}
        return self.step(happened(Regenerate, **named), to="PROMPTED")

    def keep(self, **kept: bool) -> Self:
        return self.step(happened(Keep, **kept))

    def enters(self, *messages: Json, to: str = "ANSWERED", tail_id: str | None = None, parent_id: str | None) -> Self:
        """The existing chat is read; the next prompt follows ``parent_id``."""
        self._parent = parent_id
        read = chat(*messages) | {"active_thread_tail_message_id": tail_id}
        return self.asks("FetchChat").reply(200, read, to=to)

    def reply(
        self, status: int, body: Bytes | None = None, *events: Json, to: str | None = None, headers: Json | None = None
    ) -> Self:
        """The reply. A body that is JSON is written as such, one that is to be sent as it is as text or as a list."""
        done = happened(ReplyReceived, status=status)
        if headers:
            done["headers"] = headers
        if body is not None:
            done["body"] = body if _is_spelled(body) else json.dumps(body, separators=(",", ":"))
        return self._settled(done, *events, to=to)

    def lost(self, *events: Json, to: str | None = None) -> Self:
        return self._settled(LOST, *events, to=to)

    def not_sent(self, *events: Json, to: str | None = None) -> Self:
        return self._settled(happened(ExchangeFailed, failure={"type": "NotSent"}), *events, to=to)

    def finds(self, credentials: Json | None, *events: Json, to: str | None = None) -> Self:
        """The credentials that were looked for."""
        if credentials is not None:
            self._credentials = credentials
        return self._settled(happened(CredentialsFound, credentials=credentials), *events, to=to)

    def opens(self) -> Self:
        return self._settled(happened(StreamOpened), to="STREAMING" if self._phase == "ASSISTANT_REQUESTED" else None)

    def _settled(self, done: Json, *events: Json, to: str | None) -> Self:
        self._timers.is_settled()
        return self.step(done, *events, to=to)

    def data(self, data: Bytes, *events: Json, to: str | None = None) -> Self:
        self._timers.gets_data()
        return self.step(happened(StreamData, data=data), *events, to=to)

    def ends(self, to: str | None = None) -> Self:
        self._timers.stream_ends()
        return self.step(happened(StreamEnded), to=to)

    def close(self, *events: Json, to: str | None = None, drain: bool = True) -> Self:
        self._timers.is_left(drain=drain)
        return self.step(happened(Close) if drain else happened(Close, drain=False), *events, to=to)

    def abandon(self, *events: Json, to: str | None = None) -> Self:
        return self.step(happened(Abandon), *events, to=to)

    def interrupt(self, *events: Json, to: str | None = None) -> Self:
        self._timers.is_interrupted()
        return self.step(happened(Interrupted), *events, to=to)

    def in_chat(self, chat_id: str) -> Self:
        """From here on it is this chat."""
        self._chat_id = chat_id
        return self

    def at_message(self, message_id: str) -> Self:
        """From here on it is this answer."""
        self._message_id = message_id
        return self

    # ---- how a conversation usually begins, goes on and ends

    def creating(self, text: str = "Hello") -> Self:
        return self.prompt(text).asks("CreateChat")

    def created(self, text: str = "Hello") -> Self:
        return self.creating(text).reply(200, {"id": CHAT}, CREATED, to="CHAT_CREATED")

    def prompting(self, text: str = "Hello") -> Self:
        return self.created(text).asks("SendPrompt")

    def prompted(self, text: str = "Hello") -> Self:
        return self.prompting(text).reply(200, {"id": PROMPT}, PROMPTED, to="PROMPTED")

    def requesting(self) -> Self:
        return self.prompted().asks("RequestAssistant")

    def requested(self) -> Self:
        return self.requesting().reply(200, {"id": ANSWER}, REQUESTED, to="ASSISTANT_REQUESTED")

    def opening(self) -> Self:
        return self.requested().asks("OpenStream")

    def streaming(self, *texts: str) -> Self:
        self.opening().opens()
        for text in texts:
            self.data(sse(a_token(text)), token(text))
        return self

    def polling(self, *texts: str) -> Self:
        return self.streaming(*texts).ends(to="POLLING").asks("FetchMessage")

    def answered(self) -> Self:
        return self.streaming("Hi").data(sse(the_end("Hi")), answered("Hi"), to="ANSWERED").closes_stream()

    def prompting_again(self, text: str = "And again?") -> Self:
        self.answered()
        self._parent, self._prompt_id, self._message_id = ANSWER, PROMPT_2, ANSWER_2
        return self.prompt(text).asks("SendPrompt")

    def leaving(self) -> Self:
        return self.close(to="DELETING").asks("DeleteChat")

    def leaves(self) -> Self:
        """The owner leaves while no answer runs, and the chat is deleted."""
        return self.leaving().gone()

    def gone(self, *events: Json) -> Self:
        return self.reply(200, None, DELETED, *events, to="LEAKED" if events else "DELETED").asks_nothing()


LOST = happened(ExchangeFailed, failure={"type": "MaybeSent"})


def _is_spelled(body: Bytes) -> bool:
    """Whether a body is text, or what stands for bytes in the format, and no JSON."""
    return not isinstance(body, dict) or body.keys() in ({"base64"}, {"repeat"})
