"""How a case is written down: step by step, each method a step or several, and what must come of it.

It knows how requests are spelled (OA-1.1, OA-2.2 to OA-2.4, OA-4.5) and keeps in mind which ids and credentials are the
current ones, so that a case says only what it is about. It does not know what an engine makes of anything.
"""

from __future__ import annotations

import json
from typing import Any, Literal, Self

Json = dict[str, Any]
Api = Literal["website", "inference"]
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

_PATHS: dict[Api, dict[str, str]] = {
    "website": {
        "CreateChat": "POST /api/chat",
        "SendPrompt": "POST /api/chat/prompter_message",
        "RequestAssistant": "POST /api/chat/assistant_message",
        "OpenStream": "GET /api/chat/events?chat_id={chat}&message_id={message}",
        "FetchMessage": "GET /api/chat/message?chat_id={chat}&message_id={message}",
        "FetchChat": "GET /api/chat?chat_id={chat}",
        "ListChats": "GET /api/chat",
        "DeleteChat": "DELETE /api/chat?chat_id={chat}",
    },
    "inference": {
        "CreateChat": "POST /chats",
        "SendPrompt": "POST /chats/{chat}/prompter_message",
        "RequestAssistant": "POST /chats/{chat}/assistant_message",
        "OpenStream": "GET /chats/{chat}/messages/{message}/events",
        "FetchMessage": "GET /chats/{chat}/messages/{message}",
        "FetchChat": "GET /chats/{chat}",
        "ListChats": "GET /chats",
        "DeleteChat": "DELETE /chats/{chat}",
    },
}
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


# ---- what an engine tells


def told(kind: str, **fields: Any) -> Json:
    return {"type": kind, **fields}


def token(text: Any) -> Json:
    return told("Token", text=text)


def queued(position: int = 0, size: int = 1) -> Json:
    return told("Queued", queue_position=position, queue_size=size)


def answered(text: Any, message_id: str = ANSWER) -> Json:
    return told("Answered", message_id=message_id, text=text)


def corrected(text: str, *, cut: bool) -> Json:
    return told("Corrected", text=text, cut=cut)


def failed(kind: str, **fields: Any) -> Json:
    return told("Failed", error={"type": kind, **fields})


def leaked(*chat_ids: str | None) -> Json:
    """Chats by their ids; None is one that no id, and no time of the server, is known of."""
    return windows(*((chat_id, None, None) for chat_id in chat_ids))


def windows(*records: tuple[str | None, str | None, str | None]) -> Json:
    return told(
        "Leaked",
        records=[
            {"chat_id": chat_id, "not_before": not_before, "not_after": not_after}
            for chat_id, not_before, not_after in records
        ],
    )


CREATED = told("Created", chat_id=CHAT)
PROMPTED = told("Prompted", message_id=PROMPT)
REQUESTED = told("Requested", message_id=ANSWER)
DELETED = told("Deleted", chat_id=CHAT)
NEVER_CREATED = told("NeverCreated")


class Case:
    """A case, as it is being written: its first line, and its steps so far.

    In each method ``to`` is the phase that the step leads to, where it leads to another one.
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
        if self._credentials:
            head["credentials"] = self._credentials
        self._options: Json = config.get("options", {})
        self.name = name
        self.clauses = clauses
        self._head: Json = {"clause": list(clauses), "name": name, "config": head | config}
        if raises is not None:
            self._head["raises"] = raises
        self._phase = "START"
        self._chat_id = CHAT
        self._prompt: str = ""
        self._parent: str | None = None
        self._prompt_id = PROMPT
        self._message_id = ANSWER
        self._steps: list[Json] = []

    def __str__(self) -> str:
        return "".join(f"{json.dumps(line)}\n" for line in (self._head, *self._steps))

    # ---- what the engine must ask for

    def asks(self, kind: str, *, delay: float = 0.0, after: str = "") -> Self:
        """The engine asks for this exchange; for the page of a list ``after`` a cursor."""
        method, _, path = _PATHS[self.api][kind].partition(" ")
        path += f"?after={after}" if after else ""
        intent: Json = {
            "kind": kind,
            "method": method,
            "url": self._base_url + path.format(chat=self._chat_id, message=self._message_id),
            "accept-encoding": "identity",
        }
        if cookies := self._credentials.get("cookies"):
            intent["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        if (bearer := self._credentials.get("token")) is not None:
            intent["authorization"] = f"Bearer {bearer}"
        body = self._body(kind)
        if body is not None:
            intent |= {"content-type": "application/json", "body": body}
        shielded = kind == "CreateChat" or self._phase in _CLEANING_UP
        return self._asked(intent | {"delay": delay, "shielded": shielded})

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
        return self._asked(None)

    def asks_for_credentials(self, *, refused: bool = False) -> Self:
        return self._asked({"kind": "LoadCookies", "refused": refused})

    def closes_stream(self) -> Self:
        """The engine has the stream closed, and it is."""
        self._asked({"kind": "CloseStream"})
        return self.ends()

    def _asked(self, intent: Json | None) -> Self:
        self._steps.append({"intent": intent, "phase": self._phase})
        return self

    # ---- what happens

    def step(self, done: Json, *events: Json, to: str | None = None) -> Self:
        self._phase = to or self._phase
        self._steps.append(done | ({"events": list(events)} if events else {}) | {"phase": self._phase})
        return self

    def refuses(self, done: Json, error: str = "LocalProtocolError") -> Self:
        """The engine refuses the call, and stays as it was."""
        self._steps.append(done | {"raises": error, "phase": self._phase})
        return self

    def prompt(self, text: str = "Hello") -> Self:
        self._prompt = text
        return self.step({"prompt": text})

    def reply(
        self, status: int, body: Bytes | None = None, *events: Json, to: str | None = None, headers: Json | None = None
    ) -> Self:
        """The reply; a body that is JSON is written as such, one that is to be sent as it is as text or as a list."""
        done: Json = {"reply": status}
        if headers:
            done["headers"] = headers
        if body is not None:
            done["body"] = body if _is_spelled(body) else json.dumps(body, separators=(",", ":"))
        return self.step(done, *events, to=to)

    def lost(self, *events: Json, to: str | None = None) -> Self:
        return self.step({"failure": "MaybeSent"}, *events, to=to)

    def not_sent(self, *events: Json, to: str | None = None) -> Self:
        return self.step({"failure": "NotSent"}, *events, to=to)

    def finds(self, credentials: Json | None, *events: Json, to: str | None = None) -> Self:
        """The credentials that were looked for."""
        if credentials is not None:
            self._credentials = credentials
        return self.step({"credentials": credentials}, *events, to=to)

    def opens(self) -> Self:
        return self.step({"stream_opened": True}, to="STREAMING" if self._phase == "ASSISTANT_REQUESTED" else None)

    def data(self, data: Bytes, *events: Json, to: str | None = None) -> Self:
        return self.step({"stream_data": data}, *events, to=to)

    def ends(self, to: str | None = None) -> Self:
        return self.step({"stream_end": True}, to=to)

    def silence(self, to: str | None = None) -> Self:
        return self.step({"silence": True}, to=to)

    def close(self, *events: Json, to: str | None = None, drain: bool = True) -> Self:
        return self.step({"close": "drain" if drain else "now"}, *events, to=to)

    def abandon(self, *events: Json, to: str | None = None) -> Self:
        return self.step({"abandon": True}, *events, to=to)

    def gives_up(self, *events: Json, to: str | None = None) -> Self:
        """The owner's patience with the answer is over."""
        return self.step({"answer_timed_out": True}, *events, to=to)

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
        """The owner leaves where no answer runs, and the chat is deleted."""
        return self.leaving().gone()

    def gone(self, *events: Json) -> Self:
        return self.reply(200, None, DELETED, *events, to="LEAKED" if events else "DELETED").asks_nothing()


def _is_spelled(body: Bytes) -> bool:
    """Whether a body is text, or what stands for bytes in the format, and no JSON."""
    return not isinstance(body, dict) or body.keys() in ({"base64"}, {"repeat"})
