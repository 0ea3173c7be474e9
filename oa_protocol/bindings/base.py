"""The interface of a binding, and what all bindings share: credentials, the options of an answer, and headers."""

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
from oa_protocol.bindings.json import ChatList, ChatSnapshot, ChatUpdate, ModelConfig, StreamEvent
from oa_protocol.engine.errors import LocalProtocolError
from oa_protocol.engine.events import Message
from oa_protocol.engine.intents import HttpRequest

Headers = Mapping[str, str] | Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]]
"""Header fields as HTTP libraries return them: a mapping, or pairs of text or bytes. Names may have any case."""

_WHOLE = (("accept", "application/json"), ("accept-encoding", "identity"), ("user-agent", f"oa_protocol/{__version__}"))
_STREAM = (("accept", "text/event-stream"), *_WHOLE[1:])
_BODY = ("content-type", "application/json")

_NAME = re.compile(r"[!-+\--:<>-~]+")  # printable ASCII without space , ; =
_VALUE = re.compile(r"(?! )[ -:<-~]*(?<! )")  # printable ASCII without ; and without spaces at either end
_TOKEN = re.compile(r"[!-~]+")
_PART = re.compile(r"(.+)\.([0-9]{1,9})")
# A name without digits isn't a secret that was passed as a name by mistake, so an error message may contain it.
_TELLABLE_NAME = re.compile(r"[A-Za-z_.-]{1,64}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials that are sent to the server: cookies (for the website only), a bearer token, or both.

    ``repr`` doesn't show them.

    Attributes:
        cookies: the cookies' names and values.
        token: the token, without ``Bearer``.
        headers: the header fields that carry the credentials.

    Raises:
        TypeError: a name, a value or the token isn't text.
        ValueError: a name, a value or the token has characters that would end its header field early.

    """

    cookies: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    token: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for number, (name, value) in enumerate(self.cookies.items(), 1):
            _check_text(name)
            _check_text(value)
            # A bad name may be a whole Cookie header that was passed by mistake, so the error doesn't contain it.
            if not is_cookie(name, ""):
                raise ValueError("the name of a cookie has characters that a Cookie header cannot carry")
            if not is_cookie(name, value):
                known = repr(name) if _TELLABLE_NAME.fullmatch(name) else f"number {number}"
                raise ValueError(f"cookie {known} has characters that a Cookie header cannot carry")
        if self.token is not None:
            _check_text(self.token)
            if not _TOKEN.fullmatch(self.token):
                raise ValueError("the token has characters that an Authorization header cannot carry")
        # This copy can't be changed by the caller after the check.
        object.__setattr__(self, "cookies", dict(self.cookies))
        object.__setattr__(self, "headers", tuple(self._spell()))

    def _spell(self) -> Iterator[tuple[str, str]]:
        if self.cookies:
            # The server joins a split session cookie in the order of the header, not by number (WIRE 9). So the parts
            # are sorted by number here. Each of the other cookies keeps its place.
            parts = iter(
                sorted(filter(None, map(_PART.fullmatch, self.cookies)), key=lambda part: (part[1], int(part[2])))
            )
            names = [next(parts)[0] if _PART.fullmatch(name) else name for name in self.cookies]
            yield "cookie", "; ".join(f"{name}={self.cookies[name]}" for name in names)
        if self.token is not None:
            yield "authorization", f"Bearer {self.token}"

    @property
    def text(self) -> str:
        """All credentials as one text, which doesn't depend on the order of the cookies."""
        return "\0".join([self.token or "", *(f"{name}={value}" for name, value in sorted(self.cookies.items()))])

    def __bool__(self) -> bool:
        return bool(self.cookies or self.token)

    def hide_in(self, text: str, base_url: str) -> str:
        """Return a text of the server at ``base_url`` without these credentials, which the server may repeat."""
        return hide(text, filter(None, (*self.cookies.values(), self.token)), base_url)


def is_cookie(name: str, value: str) -> bool:
    """Return whether a Cookie header can carry this name and this value.

    Values may have spaces, quotes and commas. RFC 6265 doesn't allow them, but browsers send them. Only two kinds of
    characters are refused: those that could end the cookie or the header line, and those that HTTP libraries encode
    differently.
    """
    return _NAME.fullmatch(name) is not None and _VALUE.fullmatch(value) is not None


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"cookies and tokens must be text, not {type(text).__name__}")


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """The options of an answer (OA-4.5). The optional fields are sent only if they are set.

    Attributes:
        model: the name of a model configuration that the server offers.
        sampling: the sampling parameters.
        plugins: the plugins' configurations, as JSON objects.
        system_prompt: the system prompt, or None to use the server's.
        user_profile: what the model is to know about the user.
        user_response_instructions: how the model is to answer.

    Raises:
        TypeError: a field has the wrong type. The message names the field.
        ValueError: a field can't be sent, for example a text with a NUL character. The message names the field.

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
        """Return the body of a request for an answer.

        Args:
            parent_id: the id of the prompter message to answer.
            chat_id: the chat's id, if the API wants it in the body.

        Raises:
            ValueError: ``parent_id`` isn't an id.

        """
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
    """Raise if ``text`` can't be stored by a server of this protocol (OA-4.4).

    Args:
        name: the name of the field, for the error message.
        text: the text to check.

    Raises:
        TypeError: ``text`` isn't a string.
        ValueError: ``text`` has a NUL character or a lone surrogate.

    """
    if not isinstance(text, str):
        raise TypeError(f"{name} must be text, not {type(text).__name__}")
    if "\0" in text:
        raise ValueError(f"{name} has a NUL character, which the server cannot store")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} has a lone surrogate at index {error.start}, which isn't a character") from None


class StreamDecoder(Protocol):
    """Cuts the bytes of one stream into the payloads of its events. For example, see ``bindings.sse.SSEDecoder``.

    The engine passes each payload to the binding's ``read_event``, and doesn't interpret it otherwise.

    Attributes:
        settled: true if nothing but complete events has arrived. Then the engine doesn't check the other two.
        too_large: true if an event exceeded the limit. The decoder can't be used any more.
        keepalives: how many keep-alives (comments or pings, for example) have arrived since the last event. The engine
            sets it back to 0.

    """

    settled: bool
    too_large: bool
    keepalives: int

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Return the payloads of the events that ``data`` completes, in their order."""
        ...


class Binding(Protocol):
    """One API: it builds the requests and reads the replies. docs/bindings.md shows how to write one.

    The methods that read return this package's types: ``Message``, ``ChatSnapshot``, ``ChatList`` and the stream's
    events, with the states of OA-3.1. If a body doesn't have the right form, they raise ``ValueError`` or msgspec's
    ``DecodeError``, and the engine turns that into a ``RemoteProtocolError``. The engine checks each id from the server
    by ``is_id`` before it uses the id in a request.
    """

    @property
    def api(self) -> str:
        """The API's name. It is ``website``, ``inference``, or a name of your own."""
        ...

    @property
    def base_url(self) -> str:
        """The server's URL, in the normal form that ``check_base_url`` returns."""
        ...

    @property
    def list_confirms_gone(self) -> bool:
        """Whether "not found" means that the chat is gone only if the list of chats can be read, too (OA-7.5)."""
        return False

    @property
    def has_branches(self) -> bool:
        """Whether a chat is a tree: several answers to one prompt, and several prompts after one answer (OA-3.2)."""
        return False

    @property
    def takes_cookies(self) -> bool:
        """Whether cookies can be credentials here. Otherwise, only a bearer token can."""
        return True

    @property
    def models_need_credentials(self) -> bool:
        """Whether the server lists its models only for an account."""
        return True

    # ---- requests

    def create_chat(self, credentials: Credentials) -> HttpRequest:
        """Return the request that creates a chat."""
        ...

    def send_prompt(self, credentials: Credentials, chat_id: str, parent_id: str | None, content: str) -> HttpRequest:
        """Return the request that posts a prompter message. ``parent_id`` is None for a chat's first prompt."""
        ...

    def request_assistant(
        self, credentials: Credentials, chat_id: str, parent_id: str, options: AnswerOptions
    ) -> HttpRequest:
        """Return the request for the answer to the prompter message ``parent_id``."""
        ...

    def open_stream(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        """Return the request that opens a message's event stream."""
        ...

    def fetch_message(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        """Return the request that reads a message."""
        ...

    def fetch_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        """Return the request that reads a chat with its messages."""
        ...

    def list_chats(
        self, credentials: Credentials, after: str | None = None, *, include_hidden: bool = False
    ) -> HttpRequest:
        """Return the request that lists the account's newest chats, or the next page.

        Args:
            credentials: the credentials to send.
            after: the cursor of the page before (``ChatList.next``), or None for the first page.
            include_hidden: true to list hidden chats, too.

        """
        ...

    def update_chat(self, credentials: Credentials, chat_id: str, update: ChatUpdate) -> HttpRequest:
        """Return the request that changes a chat's properties. The client sends it, and never the engine.

        Raises:
            LocalProtocolError: the API has no such request.

        """
        raise LocalProtocolError(f"the API {self.api!r} can't change a chat's title, or what it shows")

    def list_models(self, credentials: Credentials) -> HttpRequest:
        """Return the request that lists the models that the server offers."""
        ...

    def delete_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        """Return the request that deletes a chat."""
        ...

    # ---- accounts

    def ask_account(self, credentials: Credentials) -> HttpRequest | None:
        """Return the request that asks which account the credentials belong to, or None if the API has no such request.

        The account matters to the journal, because a sweep may only look for chats of its own account.
        """
        return None

    def read_account(self, body: bytes, /) -> str:
        """Return the account's name or id from the reply to ``ask_account``. A new login mustn't change it."""
        return body.decode()

    def session(self, credentials: Credentials, /) -> str:
        """Return a text that identifies the account if ``ask_account`` is None. It may change only with a new login."""
        return credentials.text

    # ---- replies

    def is_id(self, text: str, /) -> bool:
        """Return whether ``text`` can be the id of a chat or a message. The engine never sends any other text as an id.

        Sorted as text, ids must be in the order of time, because the newest of several messages counts (OA-3.2).
        """
        ...

    def read_chat_id(self, body: bytes, /) -> str:
        """Return the new chat's id from the reply to ``create_chat``."""
        ...

    def read_prompt_id(self, body: bytes, /) -> str:
        """Return the new prompter message's id from the reply to ``send_prompt``."""
        ...

    def read_answer_id(self, body: bytes, /) -> str:
        """Return the new assistant message's id from the reply to ``request_assistant``."""
        ...

    def read_message(self, body: bytes, message_id: str, /) -> Message:
        """Return the message ``message_id`` from the reply to ``fetch_message``."""
        ...

    def read_chat(self, body: bytes, /) -> ChatSnapshot:
        """Return the chat with its messages from the reply to ``fetch_chat``. The chat's id may be empty.

        The engine looks for a prompt there so that it doesn't send the prompt twice. If that does no harm in your API,
        you may leave out the prompts.
        """
        ...

    def read_chat_list(self, body: bytes, /) -> ChatList:
        """Return a page of the account's chats from the reply to ``list_chats``, the newest first."""
        ...

    def read_models(self, body: bytes, /) -> list[ModelConfig]:
        """Return the models from the reply to ``list_models``."""
        ...

    def read_error(self, body: bytes, /) -> str:
        """Return the error message in ``body``, or an empty text if there is none in the API's form (OA-8.1)."""
        ...

    def is_deleted(self, status: int, body: bytes, /) -> bool:
        """Return whether this reply to a DELETE confirms that the chat is gone (OA-7.3)."""
        ...

    def is_not_found(self, status: int, body: bytes, /) -> bool:
        """Return whether this reply to ``fetch_chat`` says that there is no such chat (OA-7.4)."""
        ...

    def is_prompt_there(self, status: int, words: str, /) -> bool:
        """Return whether the server refused a first prompt because the chat has one already (OA-6.10).

        Args:
            status: the HTTP status.
            words: the error message, as ``read_error`` returned it.

        """
        return False

    def leaves_message(self, status: int, words: str, /) -> bool:
        """Return whether a request for an answer that was refused like this leaves a message behind (OA-6.7).

        No worker ever takes such a message. ``status`` and ``words`` are the same as for ``is_prompt_there``.
        """
        return False

    def hint(self, status: int, words: str, doing: str, /) -> str:
        """Return what the user can do about an error, as a sentence, or an empty text.

        Args:
            status: the HTTP status.
            words: the error message, as ``read_error`` returned it.
            doing: what the failed exchange was doing, for example ``RequestAssistant.doing``.

        """
        return ""

    # ---- the stream

    def stream_decoder(self, limit: int, /) -> StreamDecoder:
        """Return a decoder for one stream. ``limit`` is the largest size of an event in bytes."""
        ...

    def read_event(self, payload: bytes, /) -> StreamEvent:
        """Return the event in a payload. Its message may have an empty id, because a stream is that of one message."""
        ...

    def is_unknown_event(self, payload: bytes, /) -> bool:
        """Return whether a payload that ``read_event`` refused is an event of an unknown type (OA-5.5).

        Such an event is ignored. Any other payload that can't be read is an error.
        """
        ...


def new_prompt(parent_id: str | None, content: str, *, chat_id: str | UnsetType = UNSET) -> bytes:
    """Return the body of the request that posts a prompter message.

    Raises:
        ValueError: ``parent_id`` isn't an id.

    """
    parent_id = None if parent_id is None else check_id(parent_id)
    return schemas.encode(schemas.NewPrompt(chat_id=chat_id, parent_id=parent_id, content=content))


def page_query(after: str | None, *, limit: int | None = None, include_hidden: bool = False) -> str:
    """Return the URL's query for a page of the list of chats, or an empty text.

    Args:
        after: the cursor of the page before, or None for the first page.
        limit: how many chats to ask for, or None if the API doesn't take a number.
        include_hidden: true to list hidden chats, too.

    """
    # The cursor comes from the server, and may contain any character, so everything is quoted.
    parts = [
        ("limit", limit),
        ("after", after and quote(after, safe="")),
        ("include_hidden", include_hidden and "true"),
    ]
    query = "&".join(f"{name}={value}" for name, value in parts if value)
    return query and f"?{query}"


def build_request(
    method: str,
    url: str,
    credentials: Credentials,
    *,
    body: bytes = b"",
    stream: bool = False,
    headers: tuple[tuple[str, str], ...] = (),
) -> HttpRequest:
    """Return a request with the headers that every API needs.

    Args:
        method: the HTTP method.
        url: the absolute URL, percent-encoded. Don't put secrets into it, because URLs are logged.
        credentials: the credentials to send, as a Cookie header and a Bearer token. If the API wants them in another
            header, pass ``Credentials()`` here, and put them into ``headers``.
        body: the JSON to send, or no bytes.
        stream: true if the reply is an event stream, not JSON.
        headers: further header fields. Their names are in lower case.

    """
    headers = (*(_STREAM if stream else _WHOLE), *credentials.headers, *headers)
    return HttpRequest(method, url, (*headers, _BODY) if body else headers, body)
