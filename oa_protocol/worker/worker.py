"""The worker: keeps a connection to the server, and answers several messages at a time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, assert_never
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidProxy, InvalidStatus, WebSocketException

from oa_protocol.engine.errors import AuthenticationError, HTTPStatusError, NotSent, OAError, RemoteProtocolError
from oa_protocol.models.base import Model, ModelError
from oa_protocol.worker._hardware import hardware
from oa_protocol.worker.model_configs import MODEL_CONFIGS, WorkerModel
from oa_protocol.worker.protocol import (
    PATH,
    VERSION,
    BadWork,
    Ending,
    Ping,
    Reply,
    Unknown,
    Work,
    decode_request,
    encode_hello,
    encode_pong,
)

LOGGER = logging.getLogger("oa_protocol.worker")

_REQUEST_LIMIT = 64 * 1024 * 1024
"""The longest request in bytes. It has all the texts of a chat."""

_LONGEST_TROUBLE = 300
"""How many characters of what the server says about the end of a connection are shown, on one line."""

_BAD_PROXY = (
    "the environment's proxy can't be used. A socks proxy needs another package: `pip install 'python-socks[asyncio]'`"
)

_SHORTEST_SECRET = 16
"""A shorter key could be an ordinary word of a message."""

State = Literal["connecting", "connected", "waiting", "stopping", "ended"]


class UpgradeRequired(OAError):
    """The server speaks another version of the worker protocol."""


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long to wait before the next connection.

    Attributes:
        first: Seconds before the first try. It is doubled for each further one.
        longest: The longest pause, in seconds.

    """

    first: float = 1.0
    longest: float = 60.0

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row, at least one.

        Up to half of the pause is random, so that not all workers come back at once.
        """
        whole = min(self.first * (1 << min(failures - 1, 30)), self.longest)
        return whole * random.uniform(0.5, 1)  # noqa: S311  # nothing here is a secret


class _Connect(connect):
    """Doesn't follow redirects, because the key would be sent to another server."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Worker:
    """Answers the messages of an inference server. It needs asyncio, and ``websockets`` (the extra ``worker``).

    The connection is made anew whenever it ends, because a server closes it if a chat is deleted while its answer is
    being written (OA-10.6). Answers that are cut by that are not lost: the server gives those without a token to
    another worker, and aborts the others. If the server isn't on this machine, the proxy of the environment is used.

    Args:
        url: The server's URL, for example ``ws://127.0.0.1:8000``. ``http`` and ``https`` mean ``ws`` and ``wss``. The
            path ``/workers/work`` is added unless it is there.
        model: Writes the answers.
        api_key: The key with which the server knows this worker. It isn't shown anywhere.
        model_config: The model for which the server's users choose this worker: a name in ``MODEL_CONFIGS``, or the
            configuration itself if your server has another.
        parallel: How many messages are answered at a time.
        back_off: The pauses between connections.
        grace: Seconds that the answers which are being written have after ``stop``.
        on_change: Is called after each change of the attributes.

    Attributes:
        state: ``connecting``, ``connected``, ``waiting`` (for the next try), ``stopping`` or ``ended``.
        running: How many answers are being written.
        answered: How many answers were written.
        failed: How many answers failed, or were cut.
        trouble: Why the last connection ended, or an empty text.

    Raises:
        ValueError: The URL, the name of the model or ``parallel`` can't be used.

    """

    def __init__(
        self,
        url: str,
        model: Model,
        *,
        api_key: str,
        model_config: str | WorkerModel = "OA_SFT_Llama_30B_6",
        parallel: int = 1,
        back_off: BackOff | None = None,
        grace: float = 30.0,
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        if parallel < 1:
            raise ValueError(f"parallel must be at least 1: {parallel}")
        self.state: State = "connecting"
        self.running = 0
        self.answered = 0
        self.failed = 0
        self.trouble = ""
        self._url = _socket_url(url)
        self._model = model
        self._api_key = _checked_key(api_key)
        self._name, self._config = _named(model_config)
        self._parallel = parallel
        self._back_off = back_off or BackOff()
        self._grace = grace
        self._on_change = on_change
        self._stopping = asyncio.Event()
        self._slots = asyncio.Semaphore(parallel)
        self._failures = 0

    async def run(self) -> None:
        """Answer messages until ``stop`` is called, or until the server terminates the worker.

        Raises:
            AuthenticationError: The key is wrong.
            UpgradeRequired: The server speaks another version of the protocol.
            HTTPStatusError: The server refuses the connection with a status that waiting doesn't change.
            NotSent: The proxy that the environment names can't be used.

        """
        try:
            while not self._stopping.is_set():
                self._set("connecting")
                self.trouble = await self._one_connection()
                if not self._stopping.is_set():
                    self._failures += 1
                    self._set("waiting")
                    await self._pause(self._back_off.pause(self._failures))
        finally:
            self._set("ended")

    def stop(self) -> None:
        """Begin no further answers, and end when those that are being written are done. Call it in the event loop."""
        self._stopping.set()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _one_connection(self) -> str:
        """Serve one connection. Return why it ended."""
        headers = {"X-API-Key": self._api_key, "X-Protocol-Version": VERSION}
        opening = _Connect(
            self._url,
            additional_headers=headers,
            max_size=_REQUEST_LIMIT,
            compression=None,  # most texts are one token
            proxy=None if _is_loopback(self._url) else True,
        )
        try:
            try:
                socket = await opening
            except (ImportError, InvalidProxy, ValueError):  # they repeat the proxy's URL, which may have a password
                raise NotSent(_BAD_PROXY) from None
            async with socket:
                await _send(socket, encode_hello(self._config, self._parallel, hardware()))
                self._set("connected")
                await self._serve(socket)
        except InvalidStatus as error:
            return _refused(error.response.status_code)
        except ConnectionClosed as error:
            reason = _reason(error)
        except (OSError, WebSocketException, RemoteProtocolError) as error:
            reason = str(error) or type(error).__name__
        else:
            return ""
        if len(self._api_key) >= _SHORTEST_SECRET:
            reason = reason.replace(self._api_key, "…")
        return " ".join(reason.split())[:_LONGEST_TROUBLE]

    async def _serve(self, socket: ClientConnection) -> None:
        """Answer requests until the connection is over, or after ``stop`` until all answers are written."""
        answers: set[asyncio.Task[None]] = set()
        reader = asyncio.create_task(self._read(socket, answers))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((reader, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():
                self._set("stopping")
                # The server's pings are still read and answered.
                await _first((reader, *answers), self._grace)
            if reader.done():
                await reader
        finally:
            for task in (reader, stopping, *answers):
                task.cancel()
            await asyncio.gather(reader, stopping, *answers, return_exceptions=True)

    async def _read(self, socket: ClientConnection, answers: set[asyncio.Task[None]]) -> None:
        while True:
            request = decode_request(await socket.recv(), self._name)
            if isinstance(request, Work | BadWork | Ping):
                self._failures = 0  # the server knows the key and the model
            match request:
                case Ping():
                    await _send(socket, encode_pong(request))
                case Work():
                    if not self._stopping.is_set():  # the server gives it to another worker when the connection ends
                        task = asyncio.create_task(self._answer(socket, request))
                        answers.add(task)
                        task.add_done_callback(answers.discard)
                case BadWork(id=request_id, error=error):
                    LOGGER.warning("%s", error)
                    await _send(socket, Reply(request_id).fail(error))
                    self._count(failed=1)
                case Ending():
                    self._end(request)
                case Unknown(kind=kind):
                    LOGGER.warning("the server sent a request of an unknown type: %.100r", kind)
                case _:
                    assert_never(request)

    def _end(self, ending: Ending) -> None:
        match ending.kind:
            case "wrong_api_key":
                raise AuthenticationError("The server doesn't accept the worker's API key.")
            case "upgrade_protocol":
                raise UpgradeRequired(f"The server doesn't speak version {VERSION} of the worker protocol.")
            case "terminate":
                self.stop()
            case "error":
                raise RemoteProtocolError(f"The server reports an error: {ending.error}")

    async def _answer(self, socket: ClientConnection, work: Work) -> None:
        async with self._slots:
            self._count(running=1)
            is_answered = False
            try:
                is_answered = await self._write(socket, work)
            except ConnectionClosed:
                pass  # the reader notices it, too
            finally:
                self._count(running=-1, answered=int(is_answered), failed=int(not is_answered))

    async def _write(self, socket: ClientConnection, work: Work) -> bool:
        """Send an answer. Return False if the model failed."""
        reply = Reply(work.id)
        try:
            async with aclosing(self._model.answer(work.request)) as pieces:
                async for piece in pieces:
                    text = reply.piece(piece)
                    if text is not None:
                        await socket.send(text)
                        await asyncio.sleep(0)  # otherwise a quick model would keep the server's pings waiting
        except ConnectionClosed:
            raise
        except Exception as error:
            if not isinstance(error, ModelError):
                LOGGER.exception("the model failed")
            await socket.send(reply.fail(str(error) or type(error).__name__))
            return False
        await socket.send(reply.end())
        return True

    def _count(self, *, running: int = 0, answered: int = 0, failed: int = 0) -> None:
        self.running += running
        self.answered += answered
        self.failed += failed
        self._on_change()

    def _set(self, state: State) -> None:
        self.state = state
        self._on_change()


async def run(
    url: str, model: Model, *, api_key: str, model_config: str | WorkerModel = "OA_SFT_Llama_30B_6", parallel: int = 1
) -> None:
    """Answer the messages of an inference server until it terminates the worker.

    The arguments, and the errors, are those of ``Worker`` and of its ``run``.
    """
    await Worker(url, model, api_key=api_key, model_config=model_config, parallel=parallel).run()


async def _send(socket: ClientConnection, text: str) -> None:
    # If the connection is over, texts that have arrived before are still read. They may say why.
    with suppress(ConnectionClosed):
        await socket.send(text)


def _reason(error: ConnectionClosed) -> str:
    if error.rcvd is None:
        # If websockets closed the connection itself, for example because a request is too long, it says why.
        said = error.sent.reason if error.sent else ""
        return f"the connection was closed: {said}" if said else "the connection was lost"
    return f"the server closed the connection: {error.rcvd.reason or error.rcvd.code}"


async def _first(tasks: tuple[asyncio.Task[None], ...], seconds: float) -> None:
    """Wait until the first task or all others are done, or the time is over."""
    reader, *others = tasks
    if others:
        rest = asyncio.gather(*others, return_exceptions=True)
        await asyncio.wait((reader, rest), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


def _refused(status: int) -> str:
    """Return why the server refused the connection. Raise an OAError if that won't change."""
    if status in (401, 403):
        raise AuthenticationError(f"The server refuses the worker with HTTP {status}. Is the key right?", status=status)
    if 300 <= status < 500 and status not in (408, 429):
        raise HTTPStatusError(
            f"The server refuses the worker with HTTP {status}. Is {PATH} below the URL, and without a redirect?",
            status=status,
        )
    return f"the server refuses the worker with HTTP {status}"


def _socket_url(url: str) -> str:
    # The errors don't repeat the URL, because it may contain secrets.
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError("the server's URL must look like ws://127.0.0.1:8000 or wss://inference.example.org")
    try:
        parts.hostname.encode("idna")
        _ = parts.port
    except ValueError:  # that of a name is a UnicodeError
        raise ValueError("the server's URL has a host or a port that can't exist") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("the server's URL must not have a user, a password, a query or a fragment")
    path = parts.path.rstrip("/").removesuffix(PATH)
    return urlunsplit((scheme, parts.netloc, path + PATH, "", ""))


def _is_loopback(url: str) -> bool:
    """Return whether the URL is one of this machine, which the proxy in the environment can't reach."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _checked_key(key: str) -> str:
    if not key or not key.isascii() or not key.isprintable():
        raise ValueError("the API key must be printable ASCII")
    return key


def _named(config: str | WorkerModel) -> tuple[str, WorkerModel]:
    if isinstance(config, WorkerModel):
        return next((name for name, known in MODEL_CONFIGS.items() if known == config), config.model_id), config
    if config not in MODEL_CONFIGS:
        raise ValueError(f"there is no model {config!r}. These are known: {', '.join(MODEL_CONFIGS)}")
    return config, MODEL_CONFIGS[config]
