"""What the outcome of an exchange means in each phase: one handler for each exchange of each phase.

Read it from top to bottom to follow one conversation: create, prompt, request, stream, poll, drain, delete. ``STEPS``
at the end says which exchange is next in each phase, and which handler gets its outcome.
"""

# ``STEPS`` is outside the class because it names the class's handlers, which are private.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar, assert_never, cast

from oa_protocol.bindings.base import Credentials
from oa_protocol.bindings.replies import Reply
from oa_protocol.engine import events as ev
from oa_protocol.engine.errors import ApiError, AuthenticationError, MaybeSent, NotSent, OAError
from oa_protocol.engine.intents import (
    EXCHANGES,
    CreateChat,
    DeleteChat,
    Exchange,
    FetchChat,
    FetchMessage,
    HttpRequest,
    ListChats,
    OpenStream,
    RequestAssistant,
    SendPrompt,
)
from oa_protocol.engine.moves import LONGEST_RETRY_AFTER, Moves, Outcome, retry_after
from oa_protocol.engine.phases import Phase, Trigger
from oa_protocol.engine.state import NO_ATTEMPT, GoneCheck, Stream, Turn

MAX_EVENT = 8 * 1024 * 1024
"""The largest size of one event of a stream, in bytes."""

MAX_ANSWER = 64 * 1024 * 1024
"""The most characters that the tokens of one answer may have. A longer answer fails."""

MAX_STREAM = 128 * 1024 * 1024
"""The largest size of one stream, in bytes. It limits the number of events, too, because a token may be empty."""

_PENDINGS_PER_CHECK = 10
_KEEPALIVES_PER_CHECK = 3
_PAGES = 50  # The most pages of the account's chats that are read after the first one.
_CAUSES = {"cancelled": ": another request of the same account, maybe another program's, cancelled it while it waited"}

Events = list[ev.Event]

_T = TypeVar("_T")

_OtherEvent = ev.Queued | ev.PluginStep | ev.Answered | ev.WorkerError  # every event of a stream except a token


class Steps(Moves):
    """The handlers. Each one gets an outcome, makes a move, and appends to ``events``.

    A handler raises an ``OAError`` if its step can't be done. ``_settle`` catches the error and fails the step with it.
    """

    __slots__ = ()

    def _settle(self, exchange: Exchange, outcome: Outcome, events: Events) -> None:
        """Pass the outcome of an exchange to its handler."""
        for step in STEPS[self.phase]:
            if step.kind is type(exchange):
                break
        else:
            # The owner left, or the answer arrived, while this exchange was running. Its outcome is no longer needed.
            return
        try:
            if not self._asks_for_credentials(exchange, outcome):
                step.handler(self, outcome, events)
        except OAError as error:
            self._step_failed(error, events)

    # ---- open an existing chat

    def _on_opened_chat(self, outcome: Outcome, events: Events) -> None:
        chat = self._read(FetchChat, outcome, self.settings.binding.read_chat, "a chat")
        if chat is None:
            return
        remote = self._remote
        remote.enter(chat)
        for message_id in (remote.parent_id, remote.prompt_id):
            if message_id:
                self._valid_id(message_id, "a message")
        self._move(Trigger.ENTERED if remote.parent_id else Trigger.ENTERED_EMPTY)
        self._begin_step()

    # ---- create

    def _on_create(self, outcome: Outcome, events: Events) -> None:
        if isinstance(outcome, Reply) and outcome.is_success:
            try:
                chat_id = self._decode(outcome, self.settings.binding.read_chat_id, "a new chat")
                self._valid_id(chat_id, "a new chat")
            except OAError as unnamed:
                # The chat exists, but its id can't be read. Another try would leave a second chat behind.
                self._name_leak(None, str(unnamed), outcome.date)
                raise
            self._remote.chat_id = chat_id
            self._move(Trigger.CREATED)
            events.append(ev.Created(chat_id))
            self._begin_step()
            return
        error = self._problem(CreateChat, outcome)
        if _is_unclear(outcome):
            self._name_leak(None, str(error), outcome.date if isinstance(outcome, Reply) else None)
        self._try_again(error, outcome)

    # ---- prompt

    def _on_prompt(self, outcome: Outcome, events: Events) -> None:
        if isinstance(outcome, Reply) and outcome.is_success:
            what = "a new prompter message"
            self._prompted(self._decode(outcome, self.settings.binding.read_prompt_id, what), what, events)
            return
        error = self._problem(SendPrompt, outcome)
        if _is_unclear(outcome) or (self._attempt.tries > 1 and self._says_prompt_is_there(error)):
            self._move(Trigger.PROMPT_LOST)
            self._begin_looking(error)
        else:
            self._try_again(error, outcome)

    def _says_prompt_is_there(self, error: OAError) -> bool:
        return isinstance(error, ApiError) and self.settings.binding.is_prompt_there(error.status, error.message)

    def _on_chat_with_prompt(self, outcome: Outcome, events: Events) -> None:
        chat = self._read(FetchChat, outcome, self.settings.binding.read_chat, "a chat")
        if chat is None:
            return
        if found := self._current.find_prompt(chat):
            self._prompted(found, "a prompter message", events)
            return
        self._move(Trigger.NEXT_PROMPT_MISSING if self._remote.parent_id else Trigger.FIRST_PROMPT_MISSING)
        self._try_again(cast("OAError", self._attempt.error))

    def _prompted(self, message_id: str, what: str, events: Events) -> None:
        self._current.prompt_id = self._valid_id(message_id, what)
        self._move(Trigger.PROMPTED)
        events.append(ev.Prompted(message_id))
        self._begin_request()

    # ---- request

    def _begin_request(self) -> None:
        """Begin to request the answer to a prompt that is in the chat. The time for the answer runs from now on."""
        if self.settings.timeouts.answer is not None:
            self._current.ends = self._clock.elapsed + self.settings.timeouts.answer
        self._begin_step()

    def _on_request(self, outcome: Outcome, events: Events) -> None:
        if isinstance(outcome, Reply) and outcome.is_success:
            self._remote.may_be_running = True
            what = "a new assistant message"
            self._requested(self._decode(outcome, self.settings.binding.read_answer_id, what), what, events)
            return
        error = self._problem(RequestAssistant, outcome)
        if _is_unclear(outcome):
            self._remote.may_be_running = True
            self._move(Trigger.REQUEST_LOST)
            self._begin_looking(error)
            return
        if isinstance(error, ApiError) and self.settings.binding.leaves_message(error.status, error.message):
            self._current.left_pending += 1
        self._try_again(error, outcome)

    def _on_chat_with_answer(self, outcome: Outcome, events: Events) -> None:
        chat = self._read(FetchChat, outcome, self.settings.binding.read_chat, "a chat")
        if chat is None:
            return
        if found := self._current.find_answer(chat):
            self._requested(found, "an assistant message", events)
            return
        self._remote.may_be_running = False
        self._move(Trigger.REQUEST_MISSING)
        self._try_again(cast("OAError", self._attempt.error))

    def _requested(self, message_id: str, what: str, events: Events) -> None:
        self._current.message_id = self._valid_id(message_id, what)
        self._move(Trigger.REQUESTED)
        events.append(ev.Requested(message_id))
        self._begin_step()

    # ---- stream

    def _on_stream_refused(self, outcome: Outcome, events: Events) -> None:
        if isinstance(outcome, NotSent):
            self._try_again(self._problem(OpenStream, outcome))
        else:
            # The server may have opened the stream, and a second reader would lose tokens (OA-6.5), so we don't try
            # again. If the server refused, there is nothing to stream. Polling works in both cases.
            self._lose_stream()

    def _on_undecodable(self, payload: bytes, error: Exception, events: Events) -> None:
        if not self.settings.binding.is_unknown_event(payload):
            self._on_bad_event(error, events)

    def _on_bad_event(self, problem: Exception | str, events: Events) -> None:
        self._fail(self._broken(f"the stream has data that is not an event of this protocol: {problem}"), events)

    def _on_stream_event(self, event: _OtherEvent, stream: Stream, turn: Turn, events: Events) -> None:
        match event:
            case ev.Queued():
                stream.pendings += 1
                stream.check_due = stream.check_due or stream.pendings % _PENDINGS_PER_CHECK == 0
                events.append(event)
            case ev.PluginStep():
                turn.is_at_work = True
                events.append(event)
            case ev.Answered():
                try:
                    if not self._on_message(event.message, events, cut=False):
                        raise self._broken(f"the server ended the stream with a message in state {event.message.state}")
                except OAError as error:
                    self._fail(error, events)
            case ev.WorkerError():
                self._remote.may_be_running = False
                self._fail(self._answer_failed(f"the server says {self._hide(event.error)!r}"), events)
            case _:
                assert_never(event)

    def _look_at_the_rest(self, stream: Stream, events: Events) -> None:
        """Handle what a stream may have besides complete events: an event that is too large, or keep-alives.

        Several keep-alives in a row mean that the server is alive but sends nothing. Then the message is read, because
        a cancelled answer may look like that (OA-5.8).
        """
        decoder = stream.decoder
        if decoder.too_large:
            self._fail(self._broken(f"the stream has an event of more than {MAX_EVENT:,} bytes"), events)
        if decoder.keepalives >= _KEEPALIVES_PER_CHECK:
            decoder.keepalives = 0
            stream.check_due = True

    def _on_check(self, outcome: Outcome, events: Events) -> None:
        """Read from the message whether the answer was cancelled or is still waiting, which no stream says (OA-5.8).

        If the message can't be read, the stream and its checks go on. But a stream also doesn't say that its chat was
        deleted, or that the credentials have expired. So if the server keeps answering with errors, the engine gives up
        the stream and polls, because polling has a time limit.
        """
        stream = self._stream
        if stream is None or not isinstance(outcome, Reply) or outcome.is_away:
            return
        if outcome.is_success:
            stream.failed_checks = 0
            self._on_message(self._decode(outcome, self._read_message, "a message"), events, cut=True)
            return
        stream.failed_checks += 1
        if stream.failed_checks > self.settings.retries:
            self._lose_stream()

    # ---- poll

    def _on_poll(self, outcome: Outcome, events: Events) -> None:
        if not isinstance(outcome, Reply) or outcome.is_away:
            # The answer may still arrive when the server is back. ``Timeouts`` limits how long we wait (OA-6.9).
            wait = retry_after(outcome)
            if wait > LONGEST_RETRY_AFTER:
                raise self._problem(FetchMessage, outcome)
            self._poll_again(wait)
            return
        message = self._read(FetchMessage, outcome, self._read_message, "a message")
        if message is not None and not self._on_message(message, events, cut=True):
            self._poll_again()

    def _on_message(self, message: ev.Message, events: Events, *, cut: bool) -> bool:
        """Handle a message that the server sent. Return whether the answer is complete."""
        turn = self._current
        if message.id not in ("", turn.message_id):
            raise self._broken(f"the server sent message {self._hide(message.id)[:80]!r} instead of {turn.message_id}")
        match message.state:
            case "complete":
                if message.content is None:
                    raise self._broken("the server sent a complete message without content")
                self._arrive(turn)
                events.extend(turn.reconcile(message.content, cut=cut))
                self._move(Trigger.ANSWERED)
                events.append(ev.Answered(message))
                self._turn = None
                self._attempt = NO_ATTEMPT
                return True
            case "aborted_by_worker" | "cancelled" | "timeout":
                self._remote.may_be_running = False
                raise self._answer_failed(
                    f"the server says that the answer is in state {message.state}{_CAUSES.get(message.state, '')}"
                )
            case _:
                turn.is_at_work = message.state == "in_progress"
                return False

    def _arrive(self, turn: Turn) -> None:
        """Note that the conversation is at the answer of ``turn`` now."""
        remote = self._remote
        remote.may_be_running = False
        remote.parent_id = turn.message_id
        remote.prompt_id = turn.prompt_id
        remote.newest_id = max(remote.newest_id, turn.message_id)

    # ---- drain

    def _on_drained_message(self, outcome: Outcome, events: Events) -> None:
        message = self._read(FetchMessage, outcome, self._read_message, "a message")
        if message is not None:
            self._drain(running=message.state in ("pending", "in_progress"))

    def _on_drained_chat(self, outcome: Outcome, events: Events) -> None:
        chat = self._read(FetchChat, outcome, self.settings.binding.read_chat, "a chat")
        if chat is not None:
            turn = None if self._remote.others_may_run else self._turn
            self._drain(running=chat.tree.is_running if turn is None else turn.is_running(chat))

    def _drain(self, *, running: bool) -> None:
        if running:
            self._poll_again()
        else:
            self._delete()

    # ---- delete

    def _on_delete(self, outcome: Outcome, events: Events) -> None:
        if isinstance(outcome, Reply) and outcome.confirms_deletion:
            self._gone(events)
            return
        attempt = self._attempt
        attempt.error = self._problem(DeleteChat, outcome)
        if isinstance(outcome, NotSent):
            # A DELETE that wasn't sent doesn't count as an attempt. Only ``Cleanup.timeout`` ends these tries.
            attempt.tries -= 1
            attempt.misses += 1
            self._delete_again(events)
            return
        wait = retry_after(outcome)
        if wait > LONGEST_RETRY_AFTER:
            raise attempt.error
        self._move(Trigger.DELETE_UNCLEAR)
        self._way_out.check = GoneCheck()
        self._pause(wait)

    def _on_chat_after_delete(self, outcome: Outcome, events: Events) -> None:
        if not isinstance(outcome, Reply) or not outcome.denies_chat:
            self._still_there(events)
        elif self.settings.binding.list_confirms_gone:
            self._way_out.check = GoneCheck(listing=True)
        else:
            self._gone(events)

    def _on_list_after_delete(self, outcome: Outcome, events: Events) -> None:
        chat_id, check = self._remote.chat_id, self._way_out.check
        page = None
        if isinstance(outcome, Reply) and outcome.status == 200:
            with suppress(OAError):
                page = outcome.decode(self.settings.binding.read_chat_list, "a list of chats", None)
        if page is None or any(chat.id == chat_id for chat in page.chats):
            self._still_there(events)
        elif page.next is None or any(chat.id < chat_id for chat in page.chats):
            # The list begins with the newest chat, and ids sort by time. This page reaches back to chats that are older
            # than ours, or is the last one, so ours would be on it, or on an earlier one.
            self._gone(events)
        elif page.chats and check.pages < _PAGES:
            self._way_out.check = GoneCheck(listing=True, after=page.next, pages=check.pages + 1)
        else:
            self._still_there(events)

    def _still_there(self, events: Events) -> None:
        self._move(Trigger.STILL_THERE)
        self._delete_again(events)

    # ---- credentials

    def _asks_for_credentials(self, exchange: Exchange, outcome: Outcome) -> bool:
        """Return whether the engine must ask for other credentials before it acts on this reply (OA-6.4).

        Raises:
            AuthenticationError: other credentials were tried for this step already, and were rejected, too.

        """
        attempt = self._attempt
        if not isinstance(outcome, Reply):
            return False
        if not outcome.rejects_credentials:
            attempt.renewed = False
            return False
        if self.phase is Phase.STREAMING:
            return False  # The open stream was accepted, and it may still bring the answer.
        rejection = cast("AuthenticationError", self._problem(type(exchange), outcome))
        if attempt.renewed:
            raise rejection
        attempt.refused = rejection
        if exchange.is_counted:
            attempt.tries -= 1
        return True

    def _on_credentials(self, credentials: Credentials | None, events: Events) -> None:
        attempt = self._attempt
        refused, attempt.refused = attempt.refused, None
        if credentials and credentials != self._credentials:
            self._credentials = credentials
            attempt.renewed = refused is not None
            if self.phase is Phase.START:
                self._move(Trigger.CREDENTIALS_LOADED)
        elif refused is not None:
            self._step_failed(refused, events)
        else:
            self._fail(self._no_credentials(), events)

    # ---- interruptions

    def _give_up(self, exchange: Exchange, events: Events) -> None:
        """Give up an exchange because the owner was interrupted. It doesn't count as a try.

        A write, or an open stream, then has an unknown outcome, like one whose reply was lost. A read is simply sent
        again. This method is never called for a create (see ``_interrupt``).
        """
        attempt = self._attempt
        if exchange.is_counted:
            attempt.tries -= 1
        if exchange.is_write or isinstance(exchange, OpenStream):
            self._settle(exchange, MaybeSent("interrupted"), events)

    # ---- what is sent

    def _spell(self, kind: type[Exchange]) -> HttpRequest:
        api, credentials, chat_id = self.settings.binding, self._credentials, self._remote.chat_id
        if kind is CreateChat:
            return api.create_chat(credentials)
        if kind is FetchChat:
            return api.fetch_chat(credentials, chat_id)
        if kind is ListChats:
            return api.list_chats(credentials, self._way_out.check.after)
        if kind is DeleteChat:
            return api.delete_chat(credentials, chat_id)
        turn = self._current
        if kind is SendPrompt:
            return api.send_prompt(credentials, chat_id, turn.parent_id, turn.prompt)
        if kind is RequestAssistant:
            return api.request_assistant(credentials, chat_id, turn.prompt_id, self.settings.options)
        if kind is OpenStream:
            return api.open_stream(credentials, chat_id, turn.message_id)
        if kind is FetchMessage:
            return api.fetch_message(credentials, chat_id, turn.message_id)
        raise TypeError(f"no request spells {kind.__name__}")

    # ---- what is read

    def _decode(self, reply: Reply, reader: Callable[[bytes], _T], what: str) -> _T:
        return reply.decode(reader, what, self.phase.name)

    def _read_message(self, body: bytes) -> ev.Message:
        return self.settings.binding.read_message(body, self._current.message_id)

    def _next_step(self) -> Step | None:
        for step in STEPS[self.phase]:
            if step.is_next(self):
                return step
        return None


class Step(NamedTuple):
    """A row of ``STEPS``: an exchange that is sent if ``is_next`` returns true, and the handler of its outcome."""

    kind: type[Exchange]
    handler: Callable[[Steps, Outcome, Events], None]
    is_next: Callable[[Steps], bool] = lambda _: True


def _has_turn(steps: Steps) -> bool:
    return steps._turn is not None


def _drains_one_message(steps: Steps) -> bool:
    return steps._turn is not None and bool(steps._turn.message_id) and not steps._remote.others_may_run


def _lists(steps: Steps) -> bool:
    return steps._way_out.check.listing


STEPS: dict[Phase, Sequence[Step]] = {
    Phase.START: [Step(CreateChat, Steps._on_create, _has_turn)],
    Phase.COOKIES: [Step(CreateChat, Steps._on_create, _has_turn)],
    Phase.OPENING: [Step(FetchChat, Steps._on_opened_chat)],
    Phase.CHAT_CREATED: [Step(SendPrompt, Steps._on_prompt, _has_turn)],
    Phase.ANSWERED: [Step(SendPrompt, Steps._on_prompt, _has_turn)],
    Phase.PROMPT_LOST: [Step(FetchChat, Steps._on_chat_with_prompt)],
    Phase.PROMPTED: [Step(RequestAssistant, Steps._on_request)],
    Phase.REQUEST_LOST: [Step(FetchChat, Steps._on_chat_with_answer)],
    Phase.ASSISTANT_REQUESTED: [Step(OpenStream, Steps._on_stream_refused)],
    Phase.STREAMING: [Step(FetchMessage, Steps._on_check)],
    Phase.POLLING: [Step(FetchMessage, Steps._on_poll)],
    Phase.DRAINING: [
        Step(FetchMessage, Steps._on_drained_message, _drains_one_message),
        Step(FetchChat, Steps._on_drained_chat),
    ],
    Phase.DELETING: [Step(DeleteChat, Steps._on_delete)],
    Phase.DELETE_UNCLEAR: [
        Step(ListChats, Steps._on_list_after_delete, _lists),
        Step(FetchChat, Steps._on_chat_after_delete),
    ],
    Phase.FAILED: [],
    Phase.DELETED: [],
    Phase.NEVER_CREATED: [],
    Phase.LEAKED: [],
    Phase.KEPT: [],
}
"""The steps of each phase. The engine sends the first one whose ``is_next`` returns true.

An outcome that has no row in the current phase came too late, and is dropped. A row has both the exchange and its
handler: if they were in two tables, an exchange without a handler could be sent in a loop.
"""


def _is_unclear(outcome: Outcome) -> bool:
    """Return whether the server may have carried out the request, although it didn't confirm that (OA-6.1)."""
    if isinstance(outcome, Reply):
        return not outcome.is_refusal and not outcome.is_busy
    return not isinstance(outcome, NotSent)


def check_steps(steps: dict[Phase, Sequence[Step]]) -> None:
    """Raise ``TypeError`` if the table lacks a phase or a kind of exchange."""
    phases = [phase.name for phase in Phase if phase not in steps]
    handled = {step.kind for row in steps.values() for step in row}
    kinds = [kind.__name__ for kind in EXCHANGES if kind not in handled]
    if phases or kinds:
        raise TypeError(f"STEPS has no row for {', '.join([*phases, *kinds])}")


check_steps(STEPS)
