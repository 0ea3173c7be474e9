"""The workers: tasks that take messages from the queue and answer them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, assert_never

import msgspec

from oa_protocol.models.base import AnswerRequest, Finish, Model, ModelError, Piece, PluginStep, Sampling, Turn
from oa_protocol.server.faults import Abandon, Answer, Freeze, Hold, Never, Script, WorkerError
from oa_protocol.server.http.live import Live
from oa_protocol.server.model_configs import name_of
from oa_protocol.server.state import ServerState
from oa_protocol.server.work import abort, emit, finish, give_up, lose, stop, take, tear_down, use_plugin

LOGGER = logging.getLogger("oa_protocol.server")

FROZEN_SECONDS = 40.0
"""After how many seconds the server gives up a worker that doesn't reply to its pings."""

P = ParamSpec("P")


@dataclass(slots=True, eq=False)
class _Job:
    answer: Answer
    task: asyncio.Task[None] | None = None


class Workers:
    """Answers up to ``count`` messages at a time. The others wait in the state's queue.

    An answer is written without waiting for a reader. But it ends only when a client has asked for the message or its
    stream, or ``reader_grace`` seconds after the last piece. Otherwise, an answer without a delay between its tokens
    would be over before any client could open its stream.
    """

    def __init__(
        self, model: Model, live: Live, script: Script, *, count: int, token_delay: float, reader_grace: float
    ) -> None:
        self._model = model
        self._live = live
        self._script = script
        self._count = count
        self._token_delay = token_delay
        self._reader_grace = reader_grace
        self._jobs: dict[str, _Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def take_up(self) -> None:
        """Let idle workers take messages from the queue. Look up the scripted answer of a new message first."""
        for newest in self._live.state.waiting[-1:]:
            if newest not in self._jobs:
                self._jobs[newest] = _Job(self._script.take(Answer, "request") or Answer())
        while self._live.state.waiting and len(self._live.state.running) < self._count:
            message_id = self._live.state.waiting[0]
            if isinstance(self._jobs[message_id].answer.then, Never):
                self._live.apply(lose, message_id)
            elif self._step(message_id, take):
                self._jobs[message_id].task = self.spawn(self._work(message_id, self._jobs[message_id].answer))
                continue
            del self._jobs[message_id]

    def stop_deleted(self) -> None:
        """Stop writing the answers of deleted chats, and let their workers take other messages."""
        state = self._live.state
        if state.quirks.answers_outlive_delete:
            return
        for message_id in state.running:
            if message_id not in state.owners:
                self._give_back(message_id)
        self.take_up()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` in a task, until it ends or the server stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """End all tasks."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, message_id: str, answer: Answer) -> None:
        try:
            async with aclosing(self._pieces(message_id, answer)) as pieces:
                if not await self._send_pieces(message_id, answer, pieces):
                    return
        except Exception as error:
            if not isinstance(error, ModelError):
                LOGGER.exception("the answer %s failed", message_id)
            await self._wait_for_reader(message_id)
            self._end(message_id, abort, str(error) or type(error).__name__)
        else:
            await self._wait_for_reader(message_id)
            self._end(message_id, finish, answer.final)

    def _pieces(self, message_id: str, answer: Answer) -> AsyncGenerator[Piece, None]:
        if answer.pieces is not None:
            return _scripted(answer.pieces)
        return self._model.answer(_request(self._live.state, message_id))

    async def _send_pieces(self, message_id: str, answer: Answer, pieces: AsyncGenerator[Piece, None]) -> bool:
        """Send the answer. Return False if it was given up before its end."""
        for _ in range(answer.after):
            piece = await anext(pieces, None)
            if piece is None:
                break
            await self._send(message_id, piece)
        match answer.then:
            case WorkerError(text=text):
                raise ModelError(text)
            case Freeze():
                await asyncio.sleep(FROZEN_SECONDS)
                self._step(message_id, lambda state: (tear_down(state, message_id), None))
                self.take_up()
                return False
            case Abandon(state=state):
                self._end(message_id, give_up, state)
                return False
            case Hold() as hold:
                await hold.wait()
            case Never() | None:
                pass
        async for piece in pieces:
            await self._send(message_id, piece)
        return True

    async def _send(self, message_id: str, piece: Piece) -> None:
        match piece:
            case str():
                self._live.apply(emit, message_id, piece)
            case PluginStep():
                # This is two events, the step and an empty token, so the readers are woken twice.
                self._live.apply(use_plugin, message_id, piece)
                self._live.channel(message_id).news.put_nowait(None)
            case Finish():
                return
            case _:
                assert_never(piece)
        self._live.channel(message_id).news.put_nowait(None)
        await asyncio.sleep(self._token_delay)

    async def _wait_for_reader(self, message_id: str) -> None:
        try:
            async with asyncio.timeout(self._reader_grace):
                await self._live.channel(message_id).claimed.wait()
        except TimeoutError:
            pass

    def _end(
        self,
        message_id: str,
        change: Callable[Concatenate[ServerState, str, P], ServerState],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """End the message with ``change``, and take the next one from the queue."""
        del self._jobs[message_id]
        self._step(message_id, lambda state: (change(state, message_id, *args, **kwargs), None))
        self.take_up()

    def _give_back(self, message_id: str) -> None:
        self._step(message_id, lambda state: (stop(state, message_id), None))

    def _step(self, message_id: str, change: Callable[[ServerState], tuple[ServerState, str | None]]) -> str | None:
        """Change the state and wake the readers. Stop the tasks of answers that were lost with their worker."""
        running = self._live.state.running
        result = self._live.step(change)
        self._live.channel(message_id).news.put_nowait(None)
        for torn in running:
            if torn not in self._live.state.running and torn in self._jobs:
                self._stop(torn)
        return result

    def _stop(self, message_id: str) -> None:
        self._live.channel(message_id).news.put_nowait(None)
        job = self._jobs.pop(message_id)
        if job.task is not None:
            job.task.cancel()
        if message_id in self._live.state.waiting:
            # The message had no token yet, so it went back to the queue, and its next worker does what was scripted.
            self._jobs[message_id] = _Job(job.answer)


async def _scripted(pieces: tuple[Piece, ...]) -> AsyncGenerator[Piece, None]:
    for piece in pieces:
        yield piece


def _request(state: ServerState, message_id: str) -> AnswerRequest:
    """Return the request that a message answers, with the messages from the chat's first one to its prompt."""
    message = state.message(message_id)
    if message is None:
        raise ModelError("The message was deleted.")
    parameters = json.loads(message.work_parameters)
    turns: list[Turn] = []
    while message is not None and message.parent_id is not None:
        message = state.message(message.parent_id)
        if message is not None:
            turns.insert(0, Turn(message.role, message.content or ""))
    return AnswerRequest(
        prompt=turns[-1].content,
        history=tuple(turns[:-1]),
        model=name_of(parameters["model_config"]),
        sampling=msgspec.convert(parameters["sampling_parameters"], Sampling),
        seed=parameters["seed"],
        system_prompt=parameters["system_prompt"],
        user_profile=parameters["user_profile"],
        user_response_instructions=parameters["user_response_instructions"],
        plugins=tuple(parameters["plugins"]),
    )
