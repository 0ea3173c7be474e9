"""Answers from an OpenAI-compatible endpoint, such as Ollama, llama.cpp, vLLM, LM Studio or OpenAI.

It doesn't use an SDK, because through an SDK an answer that breaks off looks complete. Here, an answer is complete only
if the endpoint gave the reason for its end.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import httpx

from oa_protocol.bindings._secrets import hide
from oa_protocol.bindings.replies import seconds_to_wait
from oa_protocol.bindings.sse import SSEDecoder
from oa_protocol.models._completions import body_of, read_chunk, read_error
from oa_protocol.models.base import AnswerRequest, Finish, ModelError, Piece

LOGGER = logging.getLogger("oa_protocol.models")

_OPENAI = "https://api.openai.com/v1"

_CONNECT_TIMEOUT = 10.0
_LONGEST_PAUSE = 60.0
"""The longest ``Retry-After`` that is waited for, in seconds."""
_TRIES = 4
"""How often a request is sent if the endpoint is busy."""
_FIRST_PAUSE = 1.0

_EVENT_LIMIT = 1024 * 1024
_ERROR_LIMIT = 64 * 1024
_SHOWN_LENGTH = 300

_DOES_NOT_KNOW = re.compile(
    r"unknown|unrecogni[sz]ed|unsupported|not.{0,9}support|unexpected|not.{0,9}(?:permitted|allowed)|extra.?(?:inputs|forbidden)",
    re.IGNORECASE,
)


class OpenAICompatible:
    """Answers from a chat model behind an OpenAI-compatible endpoint.

    The endpoint's parameters follow from the request's: ``max_new_tokens`` is sent as ``max_tokens``, and
    ``repetition_penalty`` also as ``repeat_penalty``, because endpoints differ. If an endpoint says that it doesn't
    know a parameter, the parameter is left out from then on, and a warning is logged once. An endpoint that is busy
    (429 or 503) is asked again after its ``Retry-After``, but only before the first token.

    It follows the environment as httpx does: ``HTTPS_PROXY``, ``NO_PROXY``, ``SSL_CERT_FILE`` and so on. Redirects
    aren't followed, so the key is sent to no other server.

    Args:
        base_url: The endpoint's URL, up to and including ``/v1``. The default is ``OPENAI_BASE_URL``. If that isn't
            set either but there is a key, it is OpenAI's.
        api_key: The key, if the endpoint needs one. The default is ``OPENAI_API_KEY``.
        model: The name of the model. The default is ``OPENAI_MODEL``.
        idle_timeout: How many seconds the endpoint may send nothing, for example while it reads a long prompt.

    Raises:
        ValueError: Something is missing, or it can't be used. The text names the variable to set.
        OSError: The certificates that the environment names can't be read.

    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        model: str | None = None,
        *,
        idle_timeout: float = 120.0,
    ) -> None:
        key = _read_key(api_key)
        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or (_OPENAI if key else "")
        name = model or os.environ.get("OPENAI_MODEL")
        if not base_url:
            raise ValueError(
                "there is no endpoint: set OPENAI_BASE_URL, for example to http://localhost:11434/v1 for Ollama, or set"
                " OPENAI_API_KEY for OpenAI"
            )
        if not name:
            raise ValueError("there is no model: set OPENAI_MODEL to the name of a model that the endpoint has")
        self._url = _chat_url(base_url)
        self._key = key
        self._model = name
        self._timeout = httpx.Timeout(idle_timeout, connect=_CONNECT_TIMEOUT)
        self._ssl_context = httpx.create_ssl_context()
        self._left_out: set[str] = set()

    def __repr__(self) -> str:
        """Show the endpoint and the model, without the key."""
        return f"OpenAICompatible({str(self._url)!r}, model={self._model!r})"

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[Piece, None]:
        """Yield the text as it arrives, and the reason for its end."""
        async with httpx.AsyncClient(verify=self._ssl_context, timeout=self._timeout) as client:
            try:
                response = await self._open(client, request)
                decoder = SSEDecoder(_EVENT_LIMIT, types=(b"error",))
                async with _body_of(response) as body:
                    async for data in body:
                        for payload in decoder.feed(data):
                            if payload == b"[DONE]":
                                raise ModelError(f"{self._origin} ended the answer without a finish_reason")
                            for piece in self._read(payload):
                                yield piece
                                if isinstance(piece, Finish):
                                    return
                        if decoder.too_large:
                            raise ModelError(f"{self._origin} sent an event of more than {_EVENT_LIMIT} bytes")
            except httpx.HTTPError as error:
                raise ModelError(self._explain(error)) from None
        raise ModelError(f"the answer broke off: {self._origin} closed the stream without a finish_reason")

    async def _open(self, client: httpx.AsyncClient, request: AnswerRequest) -> httpx.Response:
        """Return the reply to the request, if it is a stream of events."""
        # Something that compresses the stream might hold tokens back, and a small reply might fill the memory.
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        tries, pause = 1, _FIRST_PAUSE
        while True:
            sent = self._body(request)
            response = await client.send(
                client.build_request("POST", self._url, json=sent, headers=headers), stream=True
            )
            if response.status_code == 200 and _is_stream(response):
                return response
            body = await _read_start(response)
            match response.status_code:
                case 429 | 503 if tries < _TRIES:
                    wait = seconds_to_wait(response.headers.get("retry-after"), response.headers.get("date"))
                    if wait is not None and wait > _LONGEST_PAUSE:
                        raise ModelError(f"{self._refusal(response, body)}. It asks to wait for {wait:.0f} seconds")
                    await anyio.sleep(pause if wait is None else wait)
                    tries, pause = tries + 1, pause * 2
                case 400 | 422 if self._leave_out(body.decode(errors="replace"), sent):
                    pass
                case _:
                    raise ModelError(self._refusal(response, body))

    def _body(self, request: AnswerRequest) -> dict[str, object]:
        body = body_of(request)
        if "max_tokens" in self._left_out:  # OpenAI's newer models have another name for it.
            body["max_completion_tokens"] = body["max_tokens"]
        return {"model": self._model, **{name: body[name] for name in body if name not in self._left_out}}

    def _leave_out(self, words: str, sent: dict[str, object]) -> bool:
        """Leave out the parameters that the endpoint says it doesn't know. Return whether there are any."""
        if not _DOES_NOT_KNOW.search(words):
            return False
        optional = [name for name in sent if name not in ("model", "messages", "stream")]
        named = [name for name in optional if re.search(rf"\b{name}\b", words)]
        new = [name for name in named if name not in self._left_out]
        self._left_out.update(named)
        if new:
            LOGGER.warning("%s doesn't know %s, which is left out from now on", self._origin, ", ".join(new))
        return bool(named)

    def _read(self, payload: bytes) -> list[Piece]:
        kind, _, data = payload.partition(b"\n")
        try:
            if kind == b"error":
                raise ModelError(f"the model failed: {read_error(data) or 'the endpoint does not say why'}")
            return read_chunk(payload)
        except ModelError as error:
            raise ModelError(self._shown(str(error))) from None

    def _refusal(self, response: httpx.Response, body: bytes) -> str:
        """Return an error message for a reply that isn't a stream of events: what it says, and what to do next."""
        status = response.status_code
        said = f"replied {status} {response.reason_phrase}"
        if status == 200:
            said = f"replied with {_media_type(response)}, not a stream of events"
        words = read_error(body).rstrip(".")
        said = f"{self._origin} {self._shown(f'{said}: {words}' if words else said)}"
        if status in (401, 403):
            return f"{said}. Is OPENAI_API_KEY right?"
        if status in (404, 405) or _media_type(response) == "text/html":
            return (
                f"{said}. Is OPENAI_BASE_URL right, and does the endpoint have the model {self._model}? The URL usually"
                " ends in /v1."
            )
        return f"{said}. It redirects, so set OPENAI_BASE_URL to the new URL." if 300 <= status < 400 else said

    def _explain(self, error: httpx.HTTPError) -> str:
        match error:
            case httpx.ReadTimeout():
                return f"{self._origin} sent nothing for {self._timeout.read:g} seconds"
            case httpx.ConnectError() | httpx.ConnectTimeout():
                words = self._shown(str(error)) or "it doesn't answer"
                return (
                    f"cannot connect to {self._origin}: {words}. Does the endpoint run, and is OPENAI_BASE_URL right?"
                )
            case _:
                return f"the connection to {self._origin} broke: {self._shown(str(error)) or type(error).__name__}"

    @property
    def _origin(self) -> str:
        return f"{self._url.scheme}://{self._url.netloc.decode()}"

    def _shown(self, text: str) -> str:
        """Return a text of the endpoint on one line, without the key, and not too long."""
        if self._key is not None:
            # ``hide`` knows the forms of a long secret. A short key is rather a word, but it may be a secret, too.
            text = hide(text, [self._key], str(self._url))
            text = re.sub(re.escape(self._key), "***", text, flags=re.IGNORECASE)
        text = " ".join(text.split())
        return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"


def _read_key(api_key: str | None) -> str | None:
    key = (os.environ.get("OPENAI_API_KEY", "") if api_key is None else api_key).strip()
    if not all("!" <= char <= "~" for char in key):
        # The text isn't repeated. An HTTP library would do that when it refuses the header.
        raise ValueError("the API key has characters that no key has: check OPENAI_API_KEY")
    return key or None


def _chat_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise ValueError(
            "OPENAI_BASE_URL must be an http or https URL without credentials, query and fragment, for example"
            " http://localhost:11434/v1"
        )
    return url.copy_with(path=f"{url.path.rstrip('/')}/chat/completions")


def _media_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _is_stream(response: httpx.Response) -> bool:
    # Some servers leave the type out. If it isn't a stream of events then, it has no finish_reason.
    return _media_type(response) in ("text/event-stream", "")


@asynccontextmanager
async def _body_of(response: httpx.Response) -> AsyncGenerator[AsyncIterator[bytes], None]:
    body = response.aiter_bytes()
    try:
        yield body
    finally:
        await response.aclose()
        # The body is a chain of async generators. Closing the outermost one would leave the others to the garbage
        # collector, and trio warns about that. Reading on, with the connection closed, ends all of them.
        with suppress(httpx.HTTPError, httpx.StreamError):
            async for _ in body:
                pass


async def _read_start(response: httpx.Response) -> bytes:
    """Return the start of an error's body, and close the reply."""
    start = b""
    async with _body_of(response) as body:
        async for data in body:
            start += data
            if len(start) > _ERROR_LIMIT:
                break
    return start
