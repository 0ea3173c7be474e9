"""Workers and event streams, as functions on the state: the queue, the work on a message, and reading its events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from oa_protocol.models.base import ModelError, PluginStep
from oa_protocol.server.ids import timestamp
from oa_protocol.server.render import message_value
from oa_protocol.server.state import (
    ANSWER_LIMIT,
    FINISHED,
    QUEUE_LIMIT,
    UNREAD_LIMIT,
    Event,
    MessageRecord,
    ServerState,
    Stream,
    with_message,
    with_stream,
)
from oa_protocol.server.validation import ClientError

LONGEST_WAIT = 60 * 10**9
"""How long a message may wait, in nanoseconds. Afterwards, it has no position in the queue and isn't answered."""

TORN = "Aborted due to worker error."


def encode_event(event: Mapping[str, Any]) -> bytes:
    """Encode an event as the real server does: one ``data:`` line of ASCII JSON, with CRLF."""
    return f"data: {json.dumps(event)}\r\n\r\n".encode()


# ---- the queue


def enqueue(state: ServerState, message_id: str) -> ServerState:
    """Add the message to the queue. Raise ClientError (503) if the queue is full."""
    if len(state.waiting) >= QUEUE_LIMIT:
        state = _without_deleted(state)
    limit = state.quirks.queue_limit
    if len(state.waiting) >= (QUEUE_LIMIT if limit is None else limit):
        raise ClientError(503, "The server is currently busy. Please try again later.")
    return state._replace(waiting=(*state.waiting, message_id))


def _without_deleted(state: ServerState) -> ServerState:
    """Drop deleted messages from the queue. Without a worker, no one else would."""
    for message_id in state.waiting:
        if message_id not in state.owners:
            state = discard(lose(state, message_id), message_id)
    return state


def position(state: ServerState, message_id: str) -> tuple[int, int]:
    """Return the message's place in the queue and the queue's length.

    The first place is 1. A message that isn't waiting, or has waited too long, is at 0. Deleted and cancelled messages
    count until a worker comes upon them.
    """
    size = len(state.waiting)
    stream = state.streams.get(message_id)
    if stream is None or message_id not in state.waiting or state.now - stream.queued_at > LONGEST_WAIT:
        return 0, size
    return state.waiting.index(message_id) + 1, size


def take(state: ServerState, message_id: str | None = None) -> tuple[ServerState, str | None]:
    """Give a message to a worker, by default the first one in the queue. Return its id if it has to be answered.

    A cancelled message is dropped. A message that has waited for more than 60 s times out. If the message was deleted,
    the worker loses its connection in some versions of the server.
    """
    message_id = message_id or state.waiting[0]
    state = lose(state, message_id)
    message = state.message(message_id)
    if message is None:
        return discard(_told_of_deleted(state), message_id), None
    if message.state != "pending":
        return state, None
    if state.now - state.streams[message_id].queued_at > LONGEST_WAIT:
        return time_out(state, message_id), None
    state = state._replace(running=(*state.running, message_id))
    return with_message(state, message._replace(state="in_progress")), message_id


def lose(state: ServerState, message_id: str) -> ServerState:
    """Remove the message from the queue, so that no worker finds it. It stays pending."""
    return state._replace(waiting=tuple(other for other in state.waiting if other != message_id))


# ---- what a worker does


def emit(state: ServerState, message_id: str, text: str) -> ServerState:
    """Send a token. This works even if the chat was deleted. Raise ModelError if the answer is too long."""
    stream = state.streams[message_id]
    whole = (stream.text or "") + text
    if len(whole) > ANSWER_LIMIT:
        raise ModelError(f"The answer is longer than {ANSWER_LIMIT:,} characters.")
    state = with_stream(state, message_id, stream._replace(text=whole))
    return _put(state, message_id, Event(encode_event({"event_type": "token", "text": text})))


def use_plugin(state: ServerState, message_id: str, step: PluginStep) -> ServerState:
    """Send a step of a plugin, and the empty token that follows it."""
    message = state.message(message_id)
    if message is not None:
        state = with_message(state, message._replace(used_plugin=json.dumps(_used_plugin(step))))
    return emit(_put(state, message_id, Event(encode_event(_plugin_event(step)))), message_id, "")


def finish(
    state: ServerState, message_id: str, content: str | None = None, used_plugin: Mapping[str, Any] | None = None
) -> ServerState:
    """Complete the message with ``content``. By default, use the text of its tokens, stripped as workers do."""
    state, message = _report(state, message_id)
    if message is None:
        return state
    if content is None:
        content = (state.streams[message_id].text or "").strip()
    if used_plugin is not None:
        message = message._replace(used_plugin=json.dumps(used_plugin))
    message = message._replace(state="complete", content=content)
    event = Event(encode_event({"event_type": "message", "message": message_value(message)}), final=True)
    return _end(state, message, event)


def abort(state: ServerState, message_id: str, error: str = TORN) -> ServerState:
    """End the message with an error from its worker."""
    state, message = _report(state, message_id)
    return state if message is None else _fail(state, message, "aborted_by_worker", error)


def give_up(state: ServerState, message_id: str, final: Literal["cancelled", "timeout", "in_progress"]) -> ServerState:
    """Change the message's state without an event in its stream."""
    state, message = _report(lose(state, message_id), message_id)
    return state if message is None else with_message(state, message._replace(state=final))


def stop(state: ServerState, message_id: str) -> ServerState:
    """Take a deleted message from its worker."""
    return _report(state, message_id)[0]


def time_out(state: ServerState, message_id: str) -> ServerState:
    """End the message because it has waited too long. A stream that is opened later shows it as pending."""
    state, message = _report(lose(state, message_id), message_id)
    return state if message is None else _fail(state, message, "timeout", "Timeout")


def _report(state: ServerState, message_id: str) -> tuple[ServerState, MessageRecord | None]:
    """Take the message from its worker. If the message was deleted, return None instead of it."""
    state = state._replace(running=tuple(other for other in state.running if other != message_id))
    message = state.message(message_id)
    return (discard(_told_of_deleted(state), message_id), None) if message is None else (state, message)


def _fail(
    state: ServerState, message: MessageRecord, final: Literal["aborted_by_worker", "timeout"], error: str
) -> ServerState:
    message = message._replace(state=final)
    event = encode_event({"event_type": "error", "error": error, "message": message_value(message)})
    return _end(state, message, Event(event, final=True))


def _end(state: ServerState, message: MessageRecord, event: Event) -> ServerState:
    """Send the final event to the readers. If there are none, none can come any more."""
    return discard(_put(with_message(state, message), message.id, event), message.id)


def _told_of_deleted(state: ServerState) -> ServerState:
    """Close the connection of a worker that reports on a deleted message, if this server's version does so."""
    return tear_down(state) if state.quirks.delete_tears_worker else state


def tear_down(state: ServerState, *message_ids: str) -> ServerState:
    """Lose the worker that answers these messages, by default all. Those without a token go back to the queue."""
    torn = message_ids or state.running
    state = state._replace(running=tuple(other for other in state.running if other not in torn))
    for message_id in torn:
        message = state.message(message_id)
        if message is None:
            state = discard(state, message_id)
        elif state.streams[message_id].text is not None:
            state = _fail(state, message, "aborted_by_worker", TORN)
        else:
            state = with_message(state, message._replace(state="pending"))
            state = state._replace(waiting=(*state.waiting, message_id))
    return state


# ---- what a reader gets


def open_stream(state: ServerState, message_id: str) -> ServerState:
    """Count one more reader of the message's stream."""
    stream = state.streams.get(message_id) or Stream(state.now)
    return with_stream(state, message_id, stream._replace(readers=stream.readers + 1))


def next_event(state: ServerState, message_id: str) -> tuple[ServerState, Event | None]:
    """Remove and return the next event of the message's stream. Return None if there is none yet."""
    stream = state.streams.get(message_id)
    if stream is None or not stream.events:
        return state, None
    event, *rest = stream.events
    if event.final:
        return _without_stream(state, message_id), event
    return with_stream(state, message_id, stream._replace(events=tuple(rest))), event


def leave(state: ServerState, message_id: str) -> ServerState:
    """Remove a reader of the inference server's stream.

    As on the real server, the next event is lost with the reader, unless it is the final one. This isn't for readers of
    the website: when one of those leaves, the website goes on reading, and the inference server doesn't notice.
    """
    stream = state.streams.get(message_id)
    if stream is None:
        return state
    stream = stream._replace(readers=stream.readers - 1)
    if not stream.events:
        stream = stream._replace(lost=stream.lost + 1)
    elif not stream.events[0].final:
        stream = stream._replace(events=stream.events[1:])
    return discard(with_stream(state, message_id, stream), message_id)


def pending_event(state: ServerState, message_id: str) -> bytes:
    """Return the event with the message's place in the queue, encoded."""
    place, size = position(state, message_id)
    return encode_event({"event_type": "pending", "queue_position": place, "queue_size": size})


def ping(state: ServerState) -> bytes:
    """Return a ping, encoded. Pings keep an idle connection open."""
    time = timestamp(state.now).replace("T", " ")
    return (f": ping - {time}" if state.quirks.ping_comment else f"event: ping\r\ndata: {time}").encode() + b"\r\n\r\n"


def discard(state: ServerState, message_id: str) -> ServerState:
    """Forget the stream of a deleted or finished message, if no worker and no reader uses it any more."""
    stream = state.streams.get(message_id)
    if stream is None or stream.readers > 0 or message_id in state.waiting or message_id in state.running:
        return state
    message = state.message(message_id)
    return state if message is not None and message.state not in FINISHED else _without_stream(state, message_id)


def _put(state: ServerState, message_id: str, event: Event) -> ServerState:
    stream = state.streams.get(message_id) or Stream(state.now)
    if stream.lost and not event.final:
        return with_stream(state, message_id, stream._replace(lost=stream.lost - 1))
    return with_stream(state, message_id, stream._replace(events=(*stream.events[1 - UNREAD_LIMIT :], event)))


def _without_stream(state: ServerState, message_id: str) -> ServerState:
    return state._replace(streams={other: stream for other, stream in state.streams.items() if other != message_id})


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
