"""The workers: tasks that take messages from the queue and answer them."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, assert_never

import msgspec

from oa_protocol.models.base import AnswerRequest, Finish, Model, ModelError, Piece, PluginStep, Sampling, Turn
from oa_protocol.server._worker_protocol import Hello, encode_work, is_for
from oa_protocol.server.faults import Abandon, Answer, Freeze, Hold, Never, Script, WorkerError
from oa_protocol.server.http.live import Live
from oa_protocol.server.model_configs import name_of
from oa_protocol.server.state import ServerState
from oa_protocol.server.work import abort, emit, finish, give_up, lose, stop, take, tear_down, use_plugin

LOGGER = logging.getLogger("oa_protocol.server")

FROZEN_SECONDS = 40.0
"""After how many seconds the server gives up a worker that doesn't reply to its pings."""

P = ParamSpec("P")


class RemoteWorker:
    """A worker that runs elsewhere. ``jobs`` has the messages that it answers, by the ids of their requests.

    What is put into the ``outbox`` is sent to the worker. None closes its connection.
    """

    def __init__(self, hello: Hello) -> None:
        self.hello = hello
        self.jobs: dict[str, str] = {}
        self.outbox: asyncio.Queue[str | None] = asyncio.Queue()

    @property
    def is_free(self) -> bool:
        """Whether it can answer one more message."""
        return len(self.jobs) < self.hello.config.max_parallel_requests


@dataclass(slots=True, eq=False)
class _Job:
    answer: Answer
    task: asyncio.Task[None] | None = None
    remote: RemoteWorker | None = None


class Workers:
    """Answers up to ``count`` messages at a time, and passes others on to remote workers. The rest waits in the queue.

    A remote worker comes first, if it has the model that the message asks for. Scripted answers are never passed on.

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
        self._remotes: list[RemoteWorker] = []

    def take_up(self) -> None:
        """Let idle workers take messages from the queue. Look up the scripted answer of a new message first."""
        state = self._live.state
        if len(self._jobs) > len(state.waiting) + len(state.running):  # the queue has dropped deleted messages
            known = {*state.waiting, *state.running}
            self._jobs = {message_id: job for message_id, job in self._jobs.items() if message_id in known}
        for newest in state.waiting[-1:]:
            if newest not in self._jobs:
                self._jobs[newest] = _Job(self._script.take(Answer, "request") or Answer())
        while (found := self._next_job()) is not None:
            message_id, remote = found
            if isinstance(self._jobs[message_id].answer.then, Never):
                self._live.apply(lose, message_id)
            elif self._step(message_id, take):
                self._begin(message_id, self._jobs[message_id], remote)
                continue
            del self._jobs[message_id]

    def _next_job(self) -> tuple[str, RemoteWorker | None] | None:
        """Return the first message for which somebody is free, and the remote worker if it is one."""
        state = self._live.state
        free = [remote for remote in self._remotes if remote.is_free]
        is_free = len(state.running) - sum(len(remote.jobs) for remote in self._remotes) < self._count
        if free or is_free:
            for message_id in state.waiting:
                message, is_scripted = state.message(message_id), self._jobs[message_id].answer != Answer()
                for remote in free:
                    if message is None or (not is_scripted and is_for(remote.hello, message)):
                        return message_id, remote
                if is_free:
                    return message_id, None
        return None

    def _begin(self, message_id: str, job: _Job, remote: RemoteWorker | None) -> None:
        if remote is None:
            job.task = self.spawn(self._work(message_id, job.answer))
        else:
            job.remote = remote
            request_id = str(uuid.uuid4())
            remote.jobs[request_id] = message_id
            remote.outbox.put_nowait(encode_work(self._live.state, message_id, request_id))

    # ---- remote workers

    def join(self, remote: RemoteWorker) -> None:
        """Begin to give messages to a remote worker."""
        self._remotes.append(remote)
        self._live.notify()
        self.take_up()

    def part(self, remote: RemoteWorker) -> None:
        """Take back the messages of a remote worker whose connection is over."""
        self._remotes.remove(remote)
        torn, remote.jobs = tuple(remote.jobs.values()), {}
        if torn:
            self._step(torn[0], lambda state: (tear_down(state, *torn), None))
        self._live.notify()
        self.take_up()

    def complete(self, message_id: str, content: str, used_plugin: Mapping[str, Any] | None) -> bool:
        """End an answer of a remote worker. Return False if the message was deleted."""
        return self._end_remote(message_id, lambda state: finish(state, message_id, content, used_plugin))

    def fail(self, message_id: str, error: str) -> bool:
        """End an answer that a remote worker can't write. Return False if the message was deleted."""
        return self._end_remote(message_id, lambda state: abort(state, message_id, error))

    def _end_remote(self, message_id: str, change: Callable[[ServerState], ServerState]) -> bool:
        async def end() -> None:
            await self._wait_for_reader(message_id)
            self._end(message_id, lambda state, _: change(state))

        self._jobs[message_id].remote = None
        if message_id not in self._live.state.owners:
            self._end(message_id, lambda state, _: change(state))
            return False
        self._jobs[message_id].task = self.spawn(end())
        self.take_up()
        return True

    @property
    def remotes(self) -> int:
        """How many remote workers are connected."""
        return len(self._remotes)

    # ---- the server's own

    def stop_deleted(self) -> None:
        """Stop writing the answers of deleted chats, and let their workers take other messages."""
        state = self._live.state
        if state.quirks.answers_outlive_delete:
            return
        for message_id in state.running:
            job = self._jobs.get(message_id)  # None, if it was lost with the worker of the one before it
            # A remote worker can't be stopped: the protocol has no request for that.
            if message_id not in state.owners and job is not None and job.remote is None:
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
                if answer.after:
                    await self._wait_for_reader(message_id)
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
        self.put(message_id, piece)
        await asyncio.sleep(self._token_delay)

    def put(self, message_id: str, piece: Piece) -> None:
        """Put a piece of an answer into its stream. Raise ModelError if the answer is too long."""
        match piece:
            case str():
                self._live.apply(emit, message_id, piece)
            case PluginStep():
                # This is two events, the step and an empty token, so the readers are woken twice.
                self._live.apply(use_plugin, message_id, piece)
                self._live.channel(message_id).wake()
            case Finish():
                return
            case _:
                assert_never(piece)
        self._live.channel(message_id).wake()

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
        self._live.channel(message_id).wake()
        for torn in running:
            if torn not in self._live.state.running and torn in self._jobs:
                self._stop(torn)
        return result

    def _stop(self, message_id: str) -> None:
        self._live.channel(message_id).wake()
        job = self._jobs.pop(message_id)
        if job.task is not None:
            job.task.cancel()
        if job.remote is not None:
            job.remote.jobs = {key: value for key, value in job.remote.jobs.items() if value != message_id}
            job.remote.outbox.put_nowait(None)
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
