"""The workers: they take messages off the queue and answer them."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from oa_protocol.server.faults import Abandon, Answer, Freeze, Hold, Never, WorkerError
from oa_protocol.server.models import Model, PluginStep, Turn
from oa_protocol.server.store import Message, State, Store


@dataclass(slots=True, eq=False)
class _Job:
    message: Message
    answer: Answer
    sent: list[str] = field(default_factory=list[str])
    task: asyncio.Task[None] | None = None


class _GaveUp(Exception):
    """The worker cannot answer; the text goes to the client."""


class Workers:
    """So many answers at a time, and a queue of messages behind them.

    An answer is made without waiting for a reader, but it ends only when somebody has asked for the message or its
    stream, or `reader_grace` seconds after its last piece: without a delay between the tokens it would otherwise
    be over before any client could open the stream.
    """

    def __init__(
        self, model: Model, store: Store, *, count: int, token_delay: float, reader_grace: float, torn_by_delete: bool
    ) -> None:
        self._model = model
        self._store = store
        self._count = count
        self._token_delay = token_delay
        self._reader_grace = reader_grace
        self._torn_by_delete = torn_by_delete
        self._waiting: deque[_Job] = deque()
        self._running: set[_Job] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many messages no worker has taken yet."""
        return len(self._waiting)

    def position(self, message: Message) -> tuple[int, int]:
        """How many messages come before this one, and how many wait; 0 for one that does not wait."""
        before = next((n for n, job in enumerate(self._waiting) if job.message is message), 0)
        return before, len(self._waiting)

    def enqueue(self, message: Message, answer: Answer) -> None:
        """Queues a message to be answered."""
        self._waiting.append(_Job(message, answer))
        self._take_up()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs `work` until it ends or the server stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Ends everything that runs."""
        self._waiting.clear()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take_up(self) -> None:
        while self._waiting and len(self._running) < self._count:
            job = self._waiting.popleft()
            self._running.add(job)
            if job.message.state == "pending" and not job.message.deleted and not isinstance(job.answer.then, Never):
                self._set_state(job.message, "in_progress")
            job.task = self.spawn(self._work(job))

    async def _work(self, job: _Job) -> None:
        try:
            await self._answer(job)
        finally:
            self._running.discard(job)
            self._take_up()

    async def _answer(self, job: _Job) -> None:
        message = job.message
        if message.deleted:
            self._tear_down()
            return
        if message.state != "in_progress":
            return
        try:
            if not await self._send_pieces(job):
                return
        except _GaveUp as error:
            await self._reader(message)
            self._abort(message, str(error))
            return
        await self._reader(message)
        if message.deleted:
            self._tear_down()
            return
        final = job.answer.final
        with self._store.changed:
            message.content = "".join(job.sent).strip() if final is None else final
            self._set_state(message, "complete")
        message.queue.put({"event_type": "message", "message": message.to_json()})

    async def _send_pieces(self, job: _Job) -> bool:
        """Whether the answer was given to its end."""
        pieces = self._pieces(job)
        for _ in range(job.answer.after):
            piece = next(pieces, None)
            if piece is None:
                break
            await self._send(job, piece)
        match job.answer.then:
            case WorkerError(text=text):
                raise _GaveUp(text)
            case Freeze():
                await Hold().wait()
            case Abandon(state=state):
                self._set_state(job.message, state)
                return False
            case Hold() as hold:
                await hold.wait()
            case Never() | None:
                pass
        for piece in pieces:
            await self._send(job, piece)
        return True

    def _pieces(self, job: _Job) -> Iterator[str | PluginStep]:
        if job.answer.pieces is not None:
            yield from job.answer.pieces
            return
        prompt, history = _prompt(job.message)
        try:
            yield from self._model.answer(prompt, history)
        except Exception as error:
            raise _GaveUp(str(error)) from error

    async def _send(self, job: _Job, piece: str | PluginStep) -> None:
        message = job.message
        if isinstance(piece, PluginStep):
            message.used_plugin = _used_plugin(piece)
            message.queue.put(_plugin_event(piece))
            piece = ""
        job.sent.append(piece)
        message.queue.put({"event_type": "token", "text": piece})
        await asyncio.sleep(self._token_delay)

    async def _reader(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._reader_grace):
                await message.queue.claimed.wait()
        except TimeoutError:
            pass

    def _abort(self, message: Message, text: str) -> None:
        self._set_state(message, "aborted_by_worker")
        if not message.deleted:
            message.queue.put({"event_type": "error", "error": text, "message": message.to_json()})

    def _tear_down(self) -> None:
        """The server closes the connection of a worker that reports on a deleted message, with all that runs on it.

        What has not sent a token yet goes back to the queue.
        """
        if not self._torn_by_delete:
            return
        for job in tuple(self._running):
            if job.task is None or job.task is asyncio.current_task():
                continue
            job.task.cancel()
            self._running.discard(job)
            if job.sent:
                self._abort(job.message, "Aborted due to worker error.")
            else:
                self._set_state(job.message, "pending")
                self._waiting.appendleft(_Job(job.message, job.answer))

    def _set_state(self, message: Message, state: State) -> None:
        with self._store.changed:
            message.state = state
            self._store.changed.notify_all()


def _prompt(message: Message) -> tuple[str, tuple[Turn, ...]]:
    messages = message.chat.messages
    turns: list[Turn] = []
    parent_id = message.parent_id
    while parent_id is not None:
        parent = messages[parent_id]
        turns.insert(0, Turn(parent.role, parent.content or ""))
        parent_id = parent.parent_id
    return turns[-1].content, tuple(turns[:-1])


def _plugin_event(step: PluginStep) -> dict[str, Any]:
    return {
        "event_type": "plugin_intermediate",
        "current_plugin_thought": step.thought,
        "current_plugin_action_taken": step.action,
        "current_plugin_action_input": step.input,
        "current_plugin_action_response": step.response,
        "message": None,
    }


def _used_plugin(step: PluginStep) -> dict[str, Any]:
    return {
        "name": step.action,
        "url": "",
        "trusted": True,
        "execution_details": {
            "inner_monologue": [step.thought],
            "final_tool_output": step.response,
            "final_prompt": "",
            "final_generation_assisted": True,
            "achieved_depth": 1,
            "error_message": None,
            "status": "success",
        },
    }
