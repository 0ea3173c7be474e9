"""The WebSocket connections of workers that run elsewhere: ``/workers/work``."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from contextlib import suppress
from typing import assert_never

from starlette.types import Receive, Scope, Send

from oa_protocol.models.base import ModelError, PluginStep
from oa_protocol.server._worker_protocol import (
    VERSION,
    DecodeErrors,
    Failed,
    GeneralError,
    GeneratedText,
    PluginIntermediate,
    Pong,
    Response,
    SafePrompt,
    Token,
    decode_hello,
    decode_response,
    encode_request,
)
from oa_protocol.server.faults import Close, End, Hang, Hold, Reset, StreamAction, WorkerFault
from oa_protocol.server.faults import Send as SendBytes
from oa_protocol.server.http.connection import connection_of
from oa_protocol.server.http.worker import LOGGER, RemoteWorker, Workers
from oa_protocol.server.requests import Request

PATH = "/workers/work"

PING_SECONDS = 3.0
"""After how many seconds without a request the worker gets a ping."""
FROZEN_SECONDS = 40.0
"""After how many seconds without a response the server gives up the worker."""


class _Over(Exception):
    """The connection is over. ``code`` and the text are for the worker, unless it has closed the connection itself."""

    def __init__(self, reason: str = "", *, code: int | None = 1000) -> None:
        super().__init__(reason)
        self.code = code


class WorkerSocket:
    """The connection of one worker, as an ASGI application. ``key`` is what it must have in ``X-API-Key``."""

    def __init__(self, workers: Workers, request: Request, key: str, fault: WorkerFault | None) -> None:
        self._workers = workers
        self._request = request
        self._key = key
        self._fault = fault or WorkerFault()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the worker until one of both closes the connection, or the worker falls silent."""
        self._scope, self._receive, self._send = scope, receive, send
        await receive()  # websocket.connect
        with suppress(OSError):  # the worker is gone
            await send({"type": "websocket.accept"})
            try:
                await self._refuse_strangers()
                await self._serve(await self._hello())
            except _Over as over:
                if over.code is not None:
                    await send({"type": "websocket.close", "code": over.code, "reason": str(over)})

    async def _refuse_strangers(self) -> None:
        if self._request.header("x-protocol-version") != VERSION:
            await self._write(encode_request("upgrade_protocol", _new_id()))
            raise _Over(f"The protocol version must be {VERSION}.", code=1008)
        if not secrets.compare_digest(self._request.header("x-api-key").encode(), self._key.encode()):
            await self._write(encode_request("wrong_api_key", _new_id()))
            raise _Over("The API key is wrong.", code=1008)

    async def _hello(self) -> RemoteWorker:
        try:
            hello = decode_hello(await self._read())
        except DecodeErrors:
            raise _Over("The first message must have a config and hardware_info.", code=1011) from None
        if not hello.is_known:
            raise _Over("The model config is unknown.", code=1011)
        return RemoteWorker(hello)

    async def _serve(self, worker: RemoteWorker) -> None:
        writer = self._workers.spawn(self._write_all(worker))
        self._workers.join(worker)
        actions, heard = list(self._fault.actions), 0
        try:
            while True:
                while actions and heard >= self._fault.after_responses:
                    await self._act(actions.pop(0))
                response = self._decode(await self._read())
                heard += not isinstance(response, Pong)
                self._handle(worker, response)
        finally:
            writer.cancel()
            self._workers.part(worker)

    async def _read(self) -> str | bytes:
        try:
            async with asyncio.timeout(FROZEN_SECONDS):
                message = await self._receive()
        except TimeoutError:
            raise _Over("The worker has fallen silent.", code=1011) from None
        if message["type"] == "websocket.disconnect":
            raise _Over(code=None)
        found: str | bytes = message.get("text") or message.get("bytes") or b""
        return found

    async def _write(self, text: str) -> None:
        await self._send({"type": "websocket.send", "text": text})

    async def _write_all(self, worker: RemoteWorker) -> None:
        with suppress(OSError):
            while (text := await self._next_text(worker)) is not None:
                await self._write(text)
            await self._send({"type": "websocket.close", "code": 1000})

    async def _next_text(self, worker: RemoteWorker) -> str | None:
        try:
            async with asyncio.timeout(PING_SECONDS):
                return await worker.outbox.get()
        except TimeoutError:
            return encode_request("ping", _new_id())

    def _decode(self, text: str | bytes) -> Response:
        try:
            return decode_response(text)
        except DecodeErrors as error:
            LOGGER.warning("a worker sent what is no response: %s", error)
            raise _Over from None

    def _handle(self, worker: RemoteWorker, response: Response) -> None:
        """Do what the response says. As on the real server, the connection ends if it is about an unknown request."""
        match response:
            case Pong() | SafePrompt():
                return
            case GeneralError(error=error):
                LOGGER.warning("a worker reports: %s", error)
                return
            case _:
                message_id = worker.jobs.get(response.request_id or "")
        if message_id is None:
            LOGGER.warning("a worker answers a request that it doesn't have")
            raise _Over
        if isinstance(response, Token | PluginIntermediate):
            piece = response.text if isinstance(response, Token) else _plugin_step(response)
            try:
                self._workers.put(message_id, piece)
                return
            except ModelError as too_long:
                # The worker can't be stopped. Its next token is about an unknown request.
                response = Failed(request_id=response.request_id, error=str(too_long))
        del worker.jobs[response.request_id or ""]
        match response:
            case GeneratedText(text=text, used_plugin=used_plugin):
                is_known = self._workers.complete(message_id, text, used_plugin)
            case Failed(error=error):
                is_known = self._workers.fail(message_id, error)
            case _:
                assert_never(response)
        if not is_known:
            raise _Over

    async def _act(self, action: StreamAction) -> None:
        match action:
            case SendBytes(data=data):
                await self._write(data.decode())
            case Hold():
                await action.wait()
            case End():
                raise _Over
            case Reset():
                await connection_of(self._scope).reset()
            case Close():
                await connection_of(self._scope).close()
            case Hang():
                await Hold().wait()
            case _:
                assert_never(action)


def _new_id() -> str:
    return str(uuid.uuid4())


def _plugin_step(response: PluginIntermediate) -> PluginStep:
    return PluginStep(
        response.current_plugin_thought,
        response.current_plugin_action_taken,
        response.current_plugin_action_input,
        response.current_plugin_action_response,
    )
