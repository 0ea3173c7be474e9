"""Makes tapes of the conversations that a browser had with a website, from its HAR file (HTTP Archive 1.2)."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Struct, field

from oa_protocol.bindings.base import AnswerOptions, Credentials, check_text
from oa_protocol.bindings.json import SamplingParameters, decode_created
from oa_protocol.bindings.website import Website
from oa_protocol.engine.conversation import Conversation
from oa_protocol.engine.errors import MaybeSent
from oa_protocol.engine.intents import Exchange, HttpRequest, LoadCookies, OpenStream
from oa_protocol.tape.format import Json, Tape, parse_tapes
from oa_protocol.tape.recorder import Recorder

_PATH = "/api/chat"
_CREDENTIALS = Credentials({"next-auth.session-token": "left out"})


class _Header(Struct):
    name: str
    value: str


class _PostData(Struct):
    text: str | None = None


class _Content(Struct):
    text: str | None = None
    encoding: str | None = None


class _Request(Struct, rename="camel"):
    method: str
    url: str
    post_data: _PostData | None = None


class _Response(Struct):
    status: int = 0
    headers: list[_Header] = []
    content: _Content = field(default_factory=_Content)

    @property
    def body(self) -> bytes:
        """The whole body; nothing where the browser left it out."""
        text = self.content.text or ""
        return base64.b64decode(text) if self.content.encoding == "base64" else text.encode(errors="replace")


class _Entry(Struct, rename="camel"):
    request: _Request
    started_date_time: str = ""
    response: _Response = field(default_factory=_Response)


class _Log(Struct):
    entries: list[_Entry]


class _Har(Struct):
    log: _Log


class _Exchange(Struct, frozen=True):
    """What the browser sent, as this package spells it, and what came back."""

    chat_id: str
    request: HttpRequest
    response: _Response
    prompt: str | None = None
    options: AnswerOptions | None = None


def parse_har(text: str) -> list[Tape]:
    """Return a tape of each chat that was made in the recording, its name the chat's id.

    A HAR file has bodies whole, so a stream is one piece. The parameters that the browser sent are the tape's options.
    A tape ends where the browser went on in a way in which this engine does not: another answer to the same prompt,
    other parameters for the next one. Credentials are left out. Raises ValueError where the text is no HAR file, or no
    chat was made in it.
    """
    try:
        # Not msgspec.json, which refuses the lone surrogates that a HAR file has where a body was cut.
        entries = msgspec.convert(json.loads(text), _Har).log.entries
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is no HAR file: {error}") from None
    entries.sort(key=lambda entry: entry.started_date_time)
    exchanges = [exchange for entry in entries if (exchange := _exchange(entry)) is not None]
    created = [exchange for exchange in exchanges if _is_create(exchange)]
    if not created:
        raise ValueError(
            "no chat was made in this HAR file: begin recording before the first prompt of a new chat, and export"
            " the file with its contents"
        )
    return [
        _tape(create, [each for each in exchanges if each.chat_id == create.chat_id and each is not create])
        for create in created
    ]


def _is_create(exchange: _Exchange) -> bool:
    return exchange.request.method == "POST" and exchange.request.url.endswith(_PATH)


def _exchange(entry: _Entry) -> _Exchange | None:
    """Return the entry as an exchange of this protocol, or None where it is none."""
    base_url, found, rest = entry.request.url.partition(_PATH)
    if not found or (entry.request.method, rest) == ("GET", ""):
        return None
    try:
        exchange = _spelled(entry, Website(base_url), urlsplit(rest).path, dict(_query(rest)))
        _ = entry.response.body  # base64 that is none is a ValueError
    except (ValueError, TypeError, KeyError, RecursionError):  # ids that are none, bodies that are not ours
        return None
    return exchange


def _query(url: str) -> Iterator[tuple[str, str]]:
    return ((name, values[0]) for name, values in parse_qs(urlsplit(url).query).items())


def _spelled(entry: _Entry, website: Website, path: str, query: dict[str, str]) -> _Exchange | None:
    sent: Json = json.loads(entry.request.post_data.text or "{}") if entry.request.post_data else {}
    response = entry.response
    match entry.request.method, path:
        case "POST", "":
            chat_id = decode_created(response.body).id
            return _Exchange(chat_id, website.create_chat(_CREDENTIALS), response)
        case "POST", "/prompter_message":
            chat_id, content = sent["chat_id"], sent["content"]
            check_text("prompt", content)
            request = website.send_prompt(_CREDENTIALS, chat_id, sent["parent_id"], content)
            return _Exchange(chat_id, request, response, prompt=content)
        case "POST", "/assistant_message":
            chat_id, options = sent["chat_id"], _options(sent)
            request = website.request_assistant(_CREDENTIALS, chat_id, sent["parent_id"], options)
            return _Exchange(chat_id, request, response, options=options)
        case "GET" | "POST", "/events":
            chat_id = query["chat_id"]
            return _Exchange(chat_id, website.open_stream(_CREDENTIALS, chat_id, query["message_id"]), response)
        case "GET", "/message":
            chat_id = query["chat_id"]
            return _Exchange(chat_id, website.fetch_message(_CREDENTIALS, chat_id, query["message_id"]), response)
        case "GET", "":
            return _Exchange(query["chat_id"], website.fetch_chat(_CREDENTIALS, query["chat_id"]), response)
        case "DELETE", "":
            return _Exchange(query["chat_id"], website.delete_chat(_CREDENTIALS, query["chat_id"]), response)
        case _:
            return None


def _options(sent: Json) -> AnswerOptions:
    return AnswerOptions(
        model=sent["model_config_name"],
        sampling=SamplingParameters.of(sent["sampling_parameters"]),
        plugins=tuple(sent["plugins"]),
        system_prompt=sent.get("system_prompt"),
        user_profile=sent.get("user_profile"),
        user_response_instructions=sent.get("user_response_instructions"),
    )


def _tape(create: _Exchange, exchanges: list[_Exchange]) -> Tape:
    """Run the engine over what the browser got, as far as it asks for that."""
    website = Website(create.request.url.removesuffix(_PATH))
    options = next((each.options for each in exchanges if each.options is not None), None)
    prompts = [each.prompt for each in exchanges if each.prompt is not None]
    leaves = any(each.request.method == "DELETE" for each in exchanges)
    waiting = [create, *exchanges]
    file = io.StringIO()
    conversation = Recorder(website, _CREDENTIALS, options, tape=file)
    while True:
        match conversation.next_intent():
            case Exchange() as intent:
                index = next((i for i, each in enumerate(waiting) if each.request == intent.request), None)
                if index is None:
                    break
                _hand_in(conversation, intent, waiting[index].response)
                del waiting[: index + 1]  # what the browser asked for before that, it did not ask in answer to that
            case LoadCookies():
                conversation.receive_cookies(None)
            case None if conversation.awaits_prompt and prompts:
                conversation.prompt(prompts.pop(0))
            case None if leaves and not conversation.is_over:
                leaves = False
                conversation.close(drain=False)
            case _:
                break
    (tape,) = parse_tapes(file.getvalue())
    return Tape(tape.config, tape.steps, name=create.chat_id)


def _hand_in(conversation: Conversation, intent: Exchange, response: _Response) -> None:
    if response.status == 0:
        conversation.receive_failure(MaybeSent("the browser got no reply"))
    elif isinstance(intent, OpenStream) and response.status == 200:
        conversation.receive_stream_opened()
        if response.body:
            conversation.receive_stream_data(response.body)
        conversation.receive_stream_end()
    else:
        # HTTP/2's own fields, which begin with a colon, are no headers.
        headers = [(header.name, header.value) for header in response.headers if not header.name.startswith(":")]
        conversation.receive_reply(response.status, headers, response.body)
