"""A drop-in replacement for the historic client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, cast

from anyio.lowlevel import RunVar

from oa_protocol.bindings.json import DEFAULT_MODEL, SamplingParameters
from oa_protocol.client.client import Client, CookieSource
from oa_protocol.client.slots import InProcessSlot

_CLIENT_OPTIONS = (
    "base_url",
    "api",
    "token",
    "transport",
    "timeouts",
    "retries",
    "cleanup",
    "journal",
    "telemetry",
    "slot",
)
_CHAT_OPTIONS = ("plugins", "system_prompt", "user_profile", "user_response_instructions")

# Callers of the historic client pass these keywords to every provider. They mean nothing here, and are ignored. The
# historic client sent each keyword to the server as a sampling parameter, even secrets.
_HISTORIC = (
    "access_token",
    "api_key",
    "auth",
    "cookie_jar",
    "ignore_stream",
    "ignore_stream_and_auth",
    "ignore_working",
    "ignored",
    "provider",
    "stream",
    "timeout",
)
# Each call makes its own client, and a request of one would cancel the waiting ones of the others. So the calls in
# one event loop take turns. The slot belongs to its loop.
_SLOT: RunVar[InProcessSlot] = RunVar("_oa_protocol_historic_slot")

_KNOWN = {*_CLIENT_OPTIONS, *_CHAT_OPTIONS, *SamplingParameters.__struct_fields__, *_HISTORIC}


class OpenAssistant:
    """The historic provider's interface.

    ``url`` is the URL of the historic site, which closed in 2023. So you have to pass ``base_url``, or set ``OA_URL``.
    """

    url = "https://open-assistant.io/chat"
    needs_auth = True
    working = True
    model = DEFAULT_MODEL

    @classmethod
    async def create_async_generator(
        cls,
        model: str | None,
        messages: Sequence[Mapping[str, Any]],
        proxy: str | None = None,
        cookies: CookieSource | None = None,
        **kwargs: Any,  # noqa: ANN401  # callers of the historic client pass many types
    ) -> AsyncIterator[str]:
        """Yield the answer to ``messages`` in pieces. The chat is deleted at the end, even after an error.

        Args:
            model: the model's name. If it is None or empty, it is ``OpenAssistant.model``.
            messages: the conversation so far, as mappings with ``role`` and ``content`` (see ``format_prompt``).
            proxy: as for ``Client``.
            cookies: as for ``Client``.
            kwargs: sampling parameters (``top_k``, ``temperature`` …); arguments of ``Client`` (``base_url``, ``api``,
                ``token``, ``transport``, ``timeouts``, ``retries``, ``cleanup``, ``journal``, ``telemetry``, ``slot``);
                and arguments of ``Client.chat`` (``plugins``, ``system_prompt``, ``user_profile``,
                ``user_response_instructions``). If one is None, its default is used. By default, all calls in one event
                loop share a slot. What callers of the historic client pass to every provider (``stream``, ``auth``,
                ``timeout`` …) is ignored.

        Raises:
            TypeError, ValueError: an argument can't be used, or a keyword is unknown.
            OAError: the conversation failed, as in ``Chat.stream``.

        """
        unknown = sorted(kwargs.keys() - _KNOWN)
        if unknown:
            near = get_close_matches(unknown[0], _KNOWN - {*_HISTORIC}, 1)
            raise TypeError(f"unknown keyword: {', '.join(unknown)}" + (f" (did you mean {near[0]}?)" if near else ""))
        prompt = format_prompt(messages)
        sampling = {name: kwargs[name] for name in SamplingParameters.__struct_fields__ if name in kwargs}
        settings = {name: kwargs[name] for name in _CLIENT_OPTIONS if kwargs.get(name) is not None}
        options = {name: kwargs[name] for name in _CHAT_OPTIONS if kwargs.get(name) is not None}
        settings.setdefault("slot", _slot())
        async with (
            Client(proxy=proxy, cookies=cookies, **settings) as client,
            client.chat(model or cls.model, sampling=sampling, **options) as chat,
        ):
            async for piece in chat.stream(prompt):
                yield piece


def _slot() -> InProcessSlot:
    try:
        return _SLOT.get()
    except LookupError:
        slot = InProcessSlot()
        _SLOT.set(slot)
        return slot


def format_prompt(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return a conversation as one prompt.

    A single message is its content. Several messages are ``Role: content`` lines, with ``Assistant:`` at the end.

    Args:
        messages: mappings with ``role`` and ``content``. If a content is a list of parts, its text parts are joined. A
            missing content is an empty one.

    Raises:
        ValueError: there is no message, or one of several has no role.

    """
    if not messages:
        raise ValueError("messages must not be empty")
    if len(messages) == 1:
        return _text(messages[0].get("content"))
    for number, message in enumerate(messages, 1):
        if "role" not in message:
            raise ValueError(f"message {number} has no role")
    lines = [f"{str(message['role']).capitalize()}: {_text(message.get('content'))}" for message in messages]
    return "\n".join([*lines, "Assistant:"])


def _text(content: object) -> str:
    match content:
        case str():
            return content
        case list() | tuple():
            return "".join(_text(part) for part in cast("Sequence[object]", content))
        case {"text": str(text)}:
            return text
        case _:
            return ""
