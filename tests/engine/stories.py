"""How the engine's stories begin: conversations brought to the point that a test is about, and the usual bodies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, Unpack

from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.website import Website
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.events import Answered, Created, Message, Prompted, Requested, Token
from oa_protocol.engine.inputs import Close, Prompt, ReplyReceived, StreamEnded, StreamOpened
from oa_protocol.engine.intents import (
    CloseStream,
    CreateChat,
    DeleteChat,
    FetchChat,
    FetchMessage,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.phases import Phase
from oa_protocol.engine.timers import Cleanup, Timeouts
from oa_protocol.testing.playbook import Data, Json, Lost, Pause, Play, Reply, Wait, play

CHAT = "06b02a54-89e8-7932-8000-0fb1fa73d8de"
PROMPT = "06b02a54-8a8e-7be5-8000-08c00366f721"
ANSWER = "06b02a54-8afd-7f08-8000-15b2d08931dc"
PROMPT_2 = "06b02a55-8a8e-7be5-8000-08c00366f722"
ANSWER_2 = "06b02a55-8afd-7f08-8000-15b2d08931dd"

COOKIES = Credentials({"next-auth.session-token": "secret"})
NEWER_COOKIES = Credentials({"next-auth.session-token": "newer secret"})

GARBAGE = "<html>It works!</html>"


def prompter(message_id: str = PROMPT, content: str = "Hello", parent_id: str | None = None) -> dict[str, object]:
    """A prompter message, as a chat lists it."""
    return {"id": message_id, "role": "prompter", "state": "manual", "parent_id": parent_id, "content": content}


def assistant(
    message_id: str = ANSWER, state: str = "pending", content: str | None = None, parent_id: str = PROMPT
) -> dict[str, object]:
    """An assistant message."""
    return {"id": message_id, "role": "assistant", "state": state, "parent_id": parent_id, "content": content}


def complete(content: str | None = "Hi there", message_id: str = ANSWER) -> dict[str, object]:
    """A complete assistant message."""
    return assistant(message_id, "complete", content)


def message(data: dict[str, object]) -> Message:
    """The same message, as the engine emits it."""
    return Message(**data)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def chat(*messages: dict[str, object]) -> dict[str, object]:
    """A chat with these messages."""
    return {"id": CHAT, "title": None, "messages": list(messages)}


def chats(*chat_ids: str) -> dict[str, object]:
    """A list of chats."""
    return {"chats": [{"id": chat_id, "title": None} for chat_id in chat_ids], "next": None, "prev": None}


def token(text: str) -> dict[str, object]:
    """A token, as the stream spells it."""
    return {"event_type": "token", "text": text}


def pending(position: int = 1) -> dict[str, object]:
    """A pending event, as the stream spells it."""
    return {"event_type": "pending", "queue_position": position, "queue_size": 5}


def final(data: dict[str, object]) -> dict[str, object]:
    """The stream's good end."""
    return {"event_type": "message", "message": data}


def worker_error(words: str) -> dict[str, object]:
    """The stream's bad end."""
    return {"event_type": "error", "error": words, "message": None}


PING = b"event: ping\r\ndata: 2026-11-22 08:33:18.087159\r\n\r\n"
COMMENT = b": ping - 2026-11-22 08:50:49.981012\r\n\r\n"


SLOWLY = Cleanup(drain=60.0, timeout=120.0)
"""Time enough to drain at leisure."""


class Limits(TypedDict, total=False):
    """How often things are tried, and how long they are waited for."""

    retries: int
    timeouts: Timeouts
    cleanup: Cleanup


@dataclass(frozen=True)
class Story:
    """Stories over one of the two bindings. Each method is named after the phase, or after what is outstanding."""

    binding: Binding

    @property
    def is_website(self) -> bool:
        return self.binding.api == "website"

    def words(self, said: object) -> Json:
        """An error body with the server's words."""
        return {"message" if self.is_website else "detail": said}

    @property
    def not_found(self) -> ReplyReceived:
        """The reply to reading a chat that isn't there."""
        return Reply(404) if self.is_website else Reply(404, {"detail": "Chat not found"})

    @property
    def deleted(self) -> ReplyReceived:
        """The reply to a DELETE that worked."""
        return Reply(200) if self.is_website else Reply(200, "null")

    def conversation(
        self,
        credentials: Credentials | None = COOKIES,
        options: AnswerOptions | None = None,
        **limits: Unpack[Limits],
    ) -> Conversation:
        return Conversation(self.binding, credentials, options, **limits)

    def existing(self, *, keep: bool = False) -> Play:
        """The chat exists already, and is being read."""
        return play(Conversation(self.binding, COOKIES, chat_id=CHAT, keep=keep)) << Phase.OPENING << FetchChat

    def start(
        self, credentials: Credentials | None = COOKIES, options: AnswerOptions | None = None, **limits: Unpack[Limits]
    ) -> Play:
        return play(self.conversation(credentials, options, **limits))

    def creating(self, prompt: str = "Hello", options: AnswerOptions | None = None, **limits: Unpack[Limits]) -> Play:
        return self.start(options=options, **limits) >> Prompt(prompt) << CreateChat

    def prompting(self, prompt: str = "Hello", options: AnswerOptions | None = None, **limits: Unpack[Limits]) -> Play:
        return self.creating(prompt, options, **limits) >> Reply(200, {"id": CHAT}) << Created(CHAT) << SendPrompt

    def prompt_lost(self, **limits: Unpack[Limits]) -> Play:
        return self.prompting(**limits) >> Lost() << Phase.PROMPT_LOST << Pause(0.5) << FetchChat

    def requesting(self, prompt: str = "Hello", options: AnswerOptions | None = None, **limits: Unpack[Limits]) -> Play:
        story = self.prompting(prompt, options, **limits)
        return story >> Reply(200, prompter(content=prompt)) << Prompted(PROMPT) << RequestAssistant

    def request_lost(self, **limits: Unpack[Limits]) -> Play:
        return self.requesting(**limits) >> Lost() << Phase.REQUEST_LOST << Pause(0.5) << FetchChat

    def opening(self, **limits: Unpack[Limits]) -> Play:
        return self.requesting(**limits) >> Reply(200, assistant()) << Requested(ANSWER) << OpenStream

    def streaming(self, *tokens: str, **limits: Unpack[Limits]) -> Play:
        story = self.opening(**limits) >> StreamOpened() << Phase.STREAMING << None
        for text in tokens:
            story = story >> Data(token(text)) << Token(text)
        return story

    def polling(self, *tokens: str, **limits: Unpack[Limits]) -> Play:
        return self.streaming(*tokens, **limits) >> StreamEnded() << Phase.POLLING << FetchMessage

    def answered(self, text: str = "Hi there", **limits: Unpack[Limits]) -> Play:
        story = self.streaming(text, **limits) >> Data(final(complete(text)))
        return story << Answered(message(complete(text))) << CloseStream >> StreamEnded() << Phase.ANSWERED << None

    def failed(self) -> Play:
        """The owner's time for the answer is over, and the answer still runs."""
        story = (self.streaming(timeouts=Timeouts(answer=20.0)) >> Wait()).drop_events()
        return story << Phase.FAILED << CloseStream >> StreamEnded() << None

    def draining(self, **limits: Unpack[Limits]) -> Play:
        return self.streaming(**limits) >> Close() << Phase.DRAINING << CloseStream >> StreamEnded() << FetchMessage

    def draining_by_chat(self, **limits: Unpack[Limits]) -> Play:
        """The request was lost, so there is no message to wait for."""
        return self.requesting(**limits) >> Close() << None >> Lost() << Phase.DRAINING << Pause(0.5) << FetchChat

    def deleting(self, **limits: Unpack[Limits]) -> Play:
        return self.answered(**limits) >> Close() << Phase.DELETING << DeleteChat

    def delete_unclear(self, **limits: Unpack[Limits]) -> Play:
        return self.deleting(**limits) >> Lost() << Phase.DELETE_UNCLEAR << FetchChat


Begin = Callable[..., Play]
"""A story's beginning, such as ``Story.streaming``; takes the story, and limits."""

Beginning = Callable[[Story], Play]
"""A beginning without limits of its own."""

WEBSITE = Story(Website("http://oa.test"))
INFERENCE = Story(InferenceServer("http://oa.test"))
