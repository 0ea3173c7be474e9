"""Makes tapes from a browser's recording of conversations with a website (a HAR file, HTTP Archive 1.2)."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from urllib.parse import parse_qs

from msgspec import Struct

from oa_protocol.bindings.base import AnswerOptions, Credentials, check_text
from oa_protocol.bindings.json import SamplingParameters
from oa_protocol.bindings.replies import UNREADABLE
from oa_protocol.bindings.website import Website
from oa_protocol.engine import inputs
from oa_protocol.engine.errors import MaybeSent
from oa_protocol.engine.intents import Exchange, HttpRequest, LoadCredentials, OpenStream
from oa_protocol.tape._har_file import Entry, Response, read_entries
from oa_protocol.tape.format import Json, Tape, parse_tapes
from oa_protocol.tape.recorder import Recorder

logger = logging.getLogger("oa_protocol")

_SHOWN = 8
_CREDENTIALS = Credentials({"next-auth.session-token": "left out"})
_PATH = Website("http://website").create_chat(_CREDENTIALS).target


class _Exchange(Struct, frozen=True):
    """What the browser sent, in a form that can be compared with the engine's requests, and the reply."""

    website: Website
    method: str
    url: str
    sent: Json
    options: AnswerOptions | None
    response: Response

    @property
    def chat_id(self) -> str:
        """The id of the chat that the request is about, or empty if it names none."""
        return str(self.sent.get("chat_id") or _address(self.url)[1].get("chat_id", [""])[0])

    def is_of(self, request: HttpRequest) -> bool:
        """Return whether the browser sent the same as ``request``."""
        asked: Json = json.loads(request.body or "{}")
        # The website may open a stream with POST, so the method of a stream isn't compared.
        is_stream = ("accept", "text/event-stream") in request.headers
        return (
            (self.method == request.method or is_stream)
            and _address(self.url) == _address(request.url)
            and all(self.sent.get(name) == asked.get(name) for name in ("chat_id", "parent_id", "content"))
            and self.options == _options(asked)
        )


def _address(url: str) -> tuple[str, dict[str, list[str]]]:
    path, _, query = url.partition("?")
    return path, parse_qs(query)


def parse_har(text: str) -> list[Tape]:
    """Return a tape for each chat that was created during the recording. A tape's name is the chat's id.

    A stream is one piece, because a HAR file has only whole bodies. The tape's options are those that the browser sent.
    Its times are not the browser's: only the engine's pauses take time. If the browser did something that this engine
    doesn't do, the tape ends there. For example, that is a second answer to the same prompt, or an answer with other
    parameters. Credentials are left out. If an entry can't be read, it is left out, and logged.

    Raises:
        ValueError: the text isn't a HAR file, or no chat was created in it.

    """
    try:
        # msgspec.json would refuse lone surrogates, which a HAR file contains if a body was cut.
        document = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is not a HAR file: {error}") from None
    left_out: list[str] = []
    match document:
        case {"log": {"entries": list()}}:
            entries = read_entries(document["log"]["entries"], left_out)
        case _:
            raise ValueError("this is not a HAR file: it has no `log` with `entries`")
    if left_out:
        logger.warning("left out what cannot be read in the HAR file: %s", "; ".join(left_out[:_SHOWN]))
    exchanges = [exchange for entry in entries if (exchange := _exchange(entry)) is not None]
    created = {chat_id: each for each in exchanges if (chat_id := _created(each)) is not None}
    if not created:
        raise ValueError(
            "no chat was created in this HAR file: begin recording before the first prompt of a new chat, and export"
            " the file with its contents"
        )
    return [
        _tape(chat_id, create, [each for each in exchanges if each.chat_id == chat_id])
        for chat_id, create in created.items()
    ]


def _exchange(entry: Entry) -> _Exchange | None:
    """Return the entry as an exchange, or None if it can't be one of this protocol."""
    base_url, path, rest = entry.request.url.partition(_PATH)
    try:
        website = Website(base_url)
        sent = json.loads((entry.request.post_data and entry.request.post_data.text) or "{}")
        options = _options(sent)
        check_text("prompt", sent.get("content", ""))
        response = entry.response or Response()
        _ = response.body  # This raises ValueError for invalid base64.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # The body isn't of this protocol.
        return None
    return _Exchange(website, entry.request.method, f"{website.base_url}{path}{rest}", sent, options, response)


def _created(exchange: _Exchange) -> str | None:
    """Return the id of the chat that the exchange created, or None."""
    if not exchange.is_of(exchange.website.create_chat(_CREDENTIALS)):
        return None
    try:
        return exchange.website.read_chat_id(exchange.response.body)
    except UNREADABLE:
        return None


def _options(sent: Json) -> AnswerOptions | None:
    """Return the options in the body of a request for an answer, or None for another request."""
    if "model_config_name" not in sent:
        return None
    return AnswerOptions(
        model=sent["model_config_name"],
        sampling=SamplingParameters.of(sent["sampling_parameters"]),
        plugins=tuple(sent["plugins"]),
        system_prompt=sent.get("system_prompt"),
        user_profile=sent.get("user_profile"),
        user_response_instructions=sent.get("user_response_instructions"),
    )


def _tape(chat_id: str, create: _Exchange, exchanges: list[_Exchange]) -> Tape:
    """Run the engine with the browser's replies, as long as the engine sends the browser's requests."""
    website = create.website
    options = next((each.options for each in exchanges if each.options is not None), None)
    prompts = [each.sent["content"] for each in exchanges if "content" in each.sent]
    leaves = any(each.is_of(website.delete_chat(_CREDENTIALS, chat_id)) for each in exchanges)
    waiting = [create, *exchanges]
    file = io.StringIO()
    conversation = Recorder(website, _CREDENTIALS, options, tape=file)
    now = 0.0
    while True:
        match conversation.next_intent(now):
            case Exchange() as intent:
                index = next((i for i, each in enumerate(waiting) if each.is_of(intent.request)), None)
                if index is None:
                    break
                for happened in _inputs(intent, waiting[index].response):
                    conversation.handle(happened, now)
                del waiting[: index + 1]  # The engine can't send the earlier requests any more.
            case LoadCredentials():
                conversation.handle(inputs.CredentialsFound(None), now)
            case None if conversation.deadline is not None:
                now = conversation.deadline
                conversation.handle(inputs.TimePassed(), now)
            case None if conversation.awaits_prompt and prompts:
                conversation.handle(inputs.Prompt(prompts.pop(0)), now)
            case None if leaves and not conversation.is_over:
                leaves = False
                conversation.handle(inputs.Close(drain=False), now)
            case _:
                break
    (tape,) = parse_tapes(file.getvalue())
    return Tape(tape.config, tape.steps, name=chat_id)


def _inputs(intent: Exchange, response: Response) -> Iterator[inputs.Input]:
    """Yield the inputs that a driver would hand in for this response."""
    if response.status == 0:
        yield inputs.ExchangeFailed(MaybeSent("the browser got no reply"))
    elif isinstance(intent, OpenStream) and response.status == 200:
        yield inputs.StreamOpened()
        if response.body:
            yield inputs.StreamData(response.body)
        yield inputs.StreamEnded()
    else:
        yield inputs.ReplyReceived(response.status, tuple(response.headers), response.body)
