"""The workers: tasks that take messages from the queue and answer them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

from oa_protocol.server.faults import Abandon, Answer, Freeze, Hold, Never, Script, WorkerError
from oa_protocol.server.http.live import Live
from oa_protocol.server.models import Model, PluginStep, Turn
from oa_protocol.server.state import ServerState
from oa_protocol.server.work import abort, emit, finish, give_up, lose, take, tear_down, use_plugin

LOGGER = logging.getLogger("oa_protocol.server")

FROZEN_SECONDS = 40.0
"""After how many seconds the server gives up a worker that doesn't reply to its pings."""

P = ParamSpec("P")


@dataclass(slots=True, eq=False)
class _Job:
    answer: Answer
    task: asyncio.Task[None] | None = None


class _GaveUp(Exception):
    """The worker can't answer. The error's text is sent to the client."""


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
            if not await self._send_pieces(message_id, answer):
                return
        except Exception as error:
            if not isinstance(error, _GaveUp):
                LOGGER.exception("the answer %s failed", message_id)
            await self._wait_for_reader(message_id)
            self._end(message_id, abort, str(error))
        else:
            await self._wait_for_reader(message_id)
            self._end(message_id, finish, answer.final)

    async def _send_pieces(self, message_id: str, answer: Answer) -> bool:
        """Send the answer. Return False if it was given up before its end."""
        pieces = self._pieces(message_id, answer)
        for _ in range(answer.after):
            piece = next(pieces, None)
            if piece is None:
                break
            await self._send(message_id, piece)
        match answer.then:
            case WorkerError(text=text):
                raise _GaveUp(text)
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
        for piece in pieces:
            await self._send(message_id, piece)
        return True

    def _pieces(self, message_id: str, answer: Answer) -> Iterator[str | PluginStep]:
        if answer.pieces is not None:
            yield from answer.pieces
            return
        turns = _turns(self._live.state, message_id)
        if not turns:
            return
        try:
            yield from self._model.answer(turns[-1].content, tuple(turns[:-1]))
        except Exception as error:
            raise _GaveUp(str(error)) from error

    async def _send(self, message_id: str, piece: str | PluginStep) -> None:
        if isinstance(piece, PluginStep):
            # This is two events, the step and an empty token, so the readers are woken twice.
            self._live.apply(use_plugin, message_id, piece)
            self._live.channel(message_id).news.put_nowait(None)
        else:
            self._live.apply(emit, message_id, piece)
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


def _turns(state: ServerState, message_id: str) -> list[Turn]:
    """Return the messages from the chat's first one to the prompt that is answered. Return none if it was deleted."""
    turns: list[Turn] = []
    message = state.message(message_id)
    while message is not None and message.parent_id is not None:
        message = state.message(message.parent_id)
        if message is not None:
            turns.insert(0, Turn(message.role, message.content or ""))
    return turns
