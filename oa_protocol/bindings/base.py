"""What a binding is, and what the bindings have in common: credentials, the options of an answer, the headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast
from urllib.parse import quote

from msgspec import UNSET, UnsetType

from oa_protocol._version import __version__
from oa_protocol.bindings import json as schemas
from oa_protocol.bindings._base_url import check_base_url as check_base_url
from oa_protocol.bindings._secrets import hide
from oa_protocol.bindings.ids import check_id
from oa_protocol.bindings.json import Chat, ChatList, ModelConfig, StreamEvent
from oa_protocol.engine.events import Message
from oa_protocol.engine.intents import HttpRequest

Headers = Mapping[str, str] | Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]]
"""Header fields as HTTP libraries have them: a mapping, or pairs of text or of bytes. Names may have any case."""

_WHOLE = (("accept", "application/json"), ("accept-encoding", "identity"), ("user-agent", f"oa_protocol/{__version__}"))
_STREAM = (("accept", "text/event-stream"), *_WHOLE[1:])
_BODY = ("content-type", "application/json")

_NAME = re.compile(r"[!-+\--:<>-~]+")  # printable ASCII without space , ; =
_VALUE = re.compile(r"(?! )[ -:<-~]*(?<! )")  # printable ASCII without ; and without spaces at its ends
_TOKEN = re.compile(r"[!-~]+")
_PART = re.compile(r"(.+)\.([0-9]{1,9})")
_TELLABLE_NAME = re.compile(r"[A-Za-z_.-]{1,64}(\.[0-9]{1,9})?")  # a secret in the place of a name has digits in it


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the server is shown: cookies (website only), a bearer token, or both. ``repr`` keeps them to itself.

    ``headers`` are the header fields that show them. Raises ValueError for a cookie or a token that would break out of
    its header, TypeError for one that is no text.
    """

    cookies: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    token: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for number, (name, value) in enumerate(self.cookies.items(), 1):
            _check_text(name)
            _check_text(value)
            # What is in a bad name may be a whole Cookie header, so no error tells it.
            if not is_cookie(name, ""):
                raise ValueError("the name of a cookie has characters that a Cookie header cannot carry")
            if not is_cookie(name, value):
                known = repr(name) if _TELLABLE_NAME.fullmatch(name) else f"number {number}"
                raise ValueError(f"cookie {known} has characters that a Cookie header cannot carry")
        if self.token is not None:
            _check_text(self.token)
            if not _TOKEN.fullmatch(self.token):
                raise ValueError("the token has characters that an Authorization header cannot carry")
        # Nobody else is to change them after this check.
        object.__setattr__(self, "cookies", dict(self.cookies))
        object.__setattr__(self, "headers", tuple(self._spell()))

    def _spell(self) -> Iterator[tuple[str, str]]:
        if self.cookies:
            # A split session cookie is put together in the order of the header, not of its parts' numbers (WIRE 9).
            parts = iter(
                sorted(filter(None, map(_PART.fullmatch, self.cookies)), key=lambda part: (part[1], int(part[2])))
            )
            names = [next(parts)[0] if _PART.fullmatch(name) else name for name in self.cookies]
            yield "cookie", "; ".join(f"{name}={self.cookies[name]}" for name in names)
        if self.token is not None:
            yield "authorization", f"Bearer {self.token}"

    @property
    def text(self) -> str:
        """All of it as text, whatever the order of the cookies."""
        return "\0".join([self.token or "", *(f"{name}={value}" for name, value in sorted(self.cookies.items()))])

    def __bool__(self) -> bool:
        return bool(self.cookies or self.token)

    def hide_in(self, text: str, base_url: str) -> str:
        """Return what a server says without the credentials that it repeats."""
        return hide(text, filter(None, (*self.cookies.values(), self.token)), base_url)


def is_cookie(name: str, value: str) -> bool:
    """Return whether a Cookie header can carry this.

    RFC 6265 allows less, but browsers send more (spaces, quotes, commas in values). What must not pass is what could
    end the cookie or the header line, and what HTTP libraries disagree about how to encode.
    """
    return _NAME.fullmatch(name) is not None and _VALUE.fullmatch(value) is not None


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"cookies and tokens must be text, not {type(text).__name__}")


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What an answer is asked for with (OA-4.5); the optional fields are sent only where they are set.

    Raises TypeError or ValueError, naming the field, for what cannot be sent.
    """

    model: str = schemas.DEFAULT_MODEL
    sampling: schemas.SamplingParameters = field(default_factory=schemas.SamplingParameters)
    plugins: tuple[Mapping[str, object], ...] = ()
    system_prompt: str | None = None
    user_profile: str | None = None
    user_response_instructions: str | None = None

    def __post_init__(self) -> None:
        for name in ("model", "system_prompt", "user_profile", "user_response_instructions"):
            text: str | None = getattr(self, name)
            if text is not None or name == "model":
                check_text(name, text)
        for plugin in cast("tuple[object, ...]", self.plugins):
            if not isinstance(plugin, Mapping):
                raise TypeError(f"each of plugins must be a mapping, not {type(plugin).__name__}")
        try:
            schemas.encode(self.plugins)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"plugins must be what JSON can carry: {error}") from None

    def body(self, parent_id: str, *, chat_id: str | UnsetType = UNSET) -> schemas.NewAnswer:
        """Return the body of the request for an answer to the prompter message ``parent_id``."""
        return schemas.NewAnswer(
            chat_id=chat_id,
            parent_id=check_id(parent_id),
            model_config_name=self.model,
            sampling_parameters=self.sampling,
            plugins=self.plugins,
            system_prompt=_unset(self.system_prompt),
            user_profile=_unset(self.user_profile),
            user_response_instructions=_unset(self.user_response_instructions),
        )


def _unset(text: str | None) -> str | UnsetType:
    return UNSET if text is None else text


def check_text(name: str, text: object) -> None:
    """Refuse what no server of this protocol can store (OA-4.4).

    Raises TypeError for what is no text, ValueError for a NUL or a lone surrogate; both name the field.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name} must be text, not {type(text).__name__}")
    if "\0" in text:
        raise ValueError(f"{name} has a NUL character, which the server cannot store")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} has a lone surrogate at index {error.start}, which is no character") from None


class StreamDecoder(Protocol):
    """Cuts the bytes of one stream into the payloads of its events. ``bindings.sse.SSEDecoder`` is one.

    A payload is what the binding's ``read_event`` reads; the engine doesn't look into it.

    Attributes:
        settled: nothing but whole events has come, so that the other two need no look.
        too_large: an event was over the limit; what follows is of no use.
        keepalives: how many signs of life without content have come since the last event. The engine resets it.

    """

    settled: bool
    too_large: bool
    keepalives: int

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Return the payloads of the events that ``data`` completes."""
        ...


class Binding(Protocol):
    """One API: how its requests are spelled, and how its replies are read. docs/bindings.md shows how to write one.

    What is read comes in the terms of this package: ``Message``, ``Chat``, ``ChatList`` and the stream's events, with
    the states of OA-3.1. A method that reads raises ``ValueError`` (or msgspec's ``DecodeError``) if the body isn't
    what it must be; the engine turns that into a ``RemoteProtocolError``. The engine checks each id with ``is_id``
    before it uses it in a request.
    """

    @property
    def api(self) -> str:
        """The API's name: ``website``, ``inference``, or one of your own."""
        ...

    @property
    def base_url(self) -> str:
        """The server's URL in its normal form, as ``check_base_url`` returns it."""
        ...

    @property
    def list_confirms_gone(self) -> bool:
        """Whether "not found" is believed only if the list of chats then answers, too (OA-7.5)."""
        return False

    # ---- requests

    def create_chat(self, credentials: Credentials) -> HttpRequest:
        """Make a chat."""
        ...

    def send_prompt(self, credentials: Credentials, chat_id: str, parent_id: str | None, content: str) -> HttpRequest:
        """Post a prompter message."""
        ...

    def request_assistant(
        self, credentials: Credentials, chat_id: str, parent_id: str, options: AnswerOptions
    ) -> HttpRequest:
        """Ask for the assistant's message."""
        ...

    def open_stream(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        """Open a message's event stream."""
        ...

    def fetch_message(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        """Read a message."""
        ...

    def fetch_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        """Read a chat with its messages."""
        ...

    def list_chats(self, credentials: Credentials, after: str | None = None) -> HttpRequest:
        """List the account's newest chats, or those after a page's cursor."""
        ...

    def list_models(self, credentials: Credentials) -> HttpRequest:
        """List the models on offer."""
        ...

    def delete_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        """Delete a chat."""
        ...

    # ---- accounts

    def ask_account(self, credentials: Credentials) -> HttpRequest | None:
        """Ask whose credentials these are, or return None if the API doesn't say."""
        return None

    def read_account(self, body: bytes, /) -> str:
        """Read what names the account, from the reply to ``ask_account``. It must outlast a new login."""
        return body.decode()

    def session(self, credentials: Credentials, /) -> str:
        """Return what stands for the account if nobody says whose it is: nothing that changes without a new login."""
        return credentials.text

    # ---- replies

    def is_id(self, text: str, /) -> bool:
        """Return whether ``text`` can be the id of a chat or a message. Nothing else is ever sent as one.

        Ids sort as text in the order of time, because of several messages the newest counts (OA-3.2).
        """
        ...

    def read_chat_id(self, body: bytes, /) -> str:
        """Read the id of the chat that was made."""
        ...

    def read_prompt_id(self, body: bytes, /) -> str:
        """Read the id of the prompter message that was made."""
        ...

    def read_answer_id(self, body: bytes, /) -> str:
        """Read the id of the assistant message that was made."""
        ...

    def read_message(self, body: bytes, message_id: str, /) -> Message:
        """Read the message that was asked for."""
        ...

    def read_chat(self, body: bytes, /) -> Chat:
        """Read the chat that was asked for, with its messages. Its id may be left empty.

        Prompts that are sent twice without harm may be left out: the engine looks for them only to avoid that.
        """
        ...

    def read_chat_list(self, body: bytes, /) -> ChatList:
        """Read a page of the account's chats, newest first."""
        ...

    def read_models(self, body: bytes, /) -> list[ModelConfig]:
        """Read the models on offer."""
        ...

    def read_error(self, body: bytes, /) -> str:
        """Return the error message in ``body``, or an empty text if it has none in the API's form (OA-8.1)."""
        ...

    def is_deleted(self, status: int, body: bytes, /) -> bool:
        """Return whether this reply to a DELETE confirms that the chat is gone (OA-7.3)."""
        ...

    def is_not_found(self, status: int, body: bytes, /) -> bool:
        """Return whether this reply to reading a chat says that there is none (OA-7.4)."""
        ...

    def is_prompt_there(self, status: int, words: str, /) -> bool:
        """Return whether a refused first prompt says that the chat has one already (OA-6.10)."""
        return False

    def leaves_message(self, status: int, words: str, /) -> bool:
        """Return whether a refused request for an answer leaves a message behind that never runs (OA-6.7)."""
        return False

    def hint(self, status: int, words: str, doing: str, /) -> str:
        """Return what a person can do about an error in ``doing`` something, as a sentence, or an empty text.

        ``doing`` is that of an exchange, such as ``RequestAssistant.doing``.
        """
        return ""

    # ---- the stream

    def stream_decoder(self, limit: int, /) -> StreamDecoder:
        """Return a decoder for one stream, whose events may have ``limit`` bytes."""
        ...

    def read_event(self, payload: bytes, /) -> StreamEvent:
        """Read one event. A message in it may have an empty id, because a stream is that of one message."""
        ...

    def is_unknown_event(self, payload: bytes, /) -> bool:
        """Return whether a payload that can't be read is an event of a type that says nothing to us (OA-5.5)."""
        ...


def new_prompt(parent_id: str | None, content: str, *, chat_id: str | UnsetType = UNSET) -> bytes:
    """Return the body of a prompter message."""
    parent_id = None if parent_id is None else check_id(parent_id)
    return schemas.encode(schemas.NewPrompt(chat_id=chat_id, parent_id=parent_id, content=content))


def page_query(after: str | None) -> str:
    """Return the query that asks for the page after a cursor; the cursor is the server's, and may hold anything."""
    return "" if after is None else f"?after={quote(after, safe='')}"


def build_request(
    method: str,
    url: str,
    credentials: Credentials,
    *,
    body: bytes = b"",
    stream: bool = False,
    headers: tuple[tuple[str, str], ...] = (),
) -> HttpRequest:
    """Return the request with the headers that each API takes, and with further ``headers`` of this one.

    Args:
        method: the HTTP method.
        url: the absolute URL, percent-encoded.
        credentials: shown as a Cookie and a Bearer token. If the API wants them elsewhere, give ``Credentials()`` here,
            and spell them in ``headers``. URLs are logged, so a secret in one could be read.
        body: JSON, or nothing.
        stream: an event stream is asked for, not JSON.
        headers: further fields, whose names are in lower case.

    """
    headers = (*(_STREAM if stream else _WHOLE), *credentials.headers, *headers)
    return HttpRequest(method, url, (*headers, _BODY) if body else headers, body)
