"""Section 6: what is done if a reply is lost, a server is busy, refuses, or rejects the credentials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from oa_protocol.engine.inputs import ReplyReceived, TimePassed
from tests.request_table import Api

from .notation import (
    ANSWER,
    BOTH,
    BUSY,
    CHAT,
    CREATED,
    CREDENTIALS,
    FRESH,
    ISE,
    NEVER_CREATED,
    NEWER,
    OLDER,
    PROMPT,
    PROMPT_2,
    PROMPTED,
    REQUESTED,
    Case,
    Json,
    a_pending,
    a_token,
    answered,
    assistant,
    chat,
    emitted,
    failed,
    happened,
    leaked,
    prompter,
    queued,
    sse,
    the_end,
    token,
    windows,
    words,
)

_ALREADY = "Trying to add first message to non-empty chat"
_PROXY = "<html>Bad gateway</html>"
_MORE: dict[Api, Json] = {"website": {"cookies": {"next-auth.session-token": "s3"}}, "inference": {"token": "t3"}}


def cases() -> Iterator[Case]:
    for each in (
        _lost_prompts,
        _lost_requests,
        _refusals,
        _busy,
        _credentials,
        _lost_streams,
        _left_behind,
        _lost_creates,
        _too_long,
        _timers,
        _interrupted,
        _already_prompted,
    ):
        yield from each()


def _status(status: int) -> Json:
    return failed("HTTPStatusError", status=status)


def _lost_prompts() -> Iterator[Case]:
    yield (
        Case("inference", "a lost prompt that arrived is adopted", "OA-6.1")
        .prompting()
        .lost(to="PROMPT_LOST")
        .asks("FetchChat")
        .reply(200, chat(prompter()), PROMPTED, to="PROMPTED")
        .asks("RequestAssistant")
    )
    yield (
        Case("inference", "a lost prompt that did not arrive is sent again", "OA-6.1")
        .prompting()
        .reply(500, None, to="PROMPT_LOST")
        .asks("FetchChat")
        .reply(200, chat(), to="CHAT_CREATED")
        .pauses(0.5)
        .asks("SendPrompt")
        .reply(200, {"id": PROMPT}, PROMPTED, to="PROMPTED")
        .asks("RequestAssistant")
    )
    for status in (500, 502, 504, 599):
        yield (
            Case("website", f"a {status} to the prompt may hide that it arrived", "OA-6.1")
            .prompting()
            .reply(status, _PROXY, to="PROMPT_LOST")
            .asks("FetchChat")
        )
    yield (
        Case("website", "a lost prompt is recognized by its content", "OA-6.1")
        .prompting("Hello ")
        .lost(to="PROMPT_LOST")
        .asks("FetchChat")
        .reply(200, chat(prompter(content="Hello")), to="CHAT_CREATED")
        .pauses(0.5)
        .asks("SendPrompt")
    )
    yield (
        Case("website", "a lost prompt is recognized by its parent, too", "OA-3.3", "OA-6.1")
        .prompting_again("Hello")
        .lost(to="PROMPT_LOST")
        .asks("FetchChat")
        .reply(200, chat(assistant("complete", "Hi"), prompter()), to="ANSWERED")
        .pauses(0.5)
        .asks("SendPrompt")
        .lost(to="PROMPT_LOST")
        .asks("FetchChat")
        .reply(
            200,
            chat(prompter(PROMPT_2, "Hello", ANSWER), prompter(), assistant("complete", "Hi")),
            emitted("Prompted", message_id=PROMPT_2),
            to="PROMPTED",
        )
        .asks("RequestAssistant")
    )
    yield (
        Case("inference", "an answer with the prompt's words is not the prompt", "OA-6.1")
        .prompting()
        .lost(to="PROMPT_LOST")
        .asks("FetchChat")
        .reply(200, chat({**prompter(), "role": "assistant", "state": "complete"}), to="CHAT_CREATED")
        .pauses(0.5)
    )
    yield (
        Case("inference", "a prompt that is lost again and again, and never arrives", "OA-6.1", "OA-6.3", retries=1)
        .prompting()
        .lost(to="PROMPT_LOST")
        .asks("FetchChat")
        .reply(200, chat(), to="CHAT_CREATED")
        .pauses(0.5)
        .asks("SendPrompt")
        .lost(to="PROMPT_LOST")
        .asks("FetchChat")
        .reply(200, chat(), failed("MaybeSent"), to="FAILED")
        .asks_nothing()
        .leaves()
    )
    yield (
        Case("website", "the look itself is tried again, and then fails", "OA-6.1", "OA-6.3")
        .prompting()
        .lost(to="PROMPT_LOST")
        .asks("FetchChat")
        .lost()
        .pauses(0.5)
        .asks("FetchChat")
        .reply(500, ISE)
        .pauses(1.0)
        .asks("FetchChat")
        .reply(503, None, _status(503), to="FAILED")
        .asks_nothing()
        .leaves()
    )
    yield (
        Case("inference", "the look is refused", "OA-6.1", "OA-6.2")
        .prompting()
        .lost(to="PROMPT_LOST")
        .asks("FetchChat")
        .reply(
            404,
            words("inference", "Chat not found"),
            failed("ApiError", status=404, message="Chat not found"),
            to="FAILED",
        )
        .asks_nothing()
    )


def _lost_requests() -> Iterator[Case]:
    ours = prompter()

    def lost(name: str, *messages: Json, api: Api = "website") -> Case:
        """The chat holds these messages, none of which is adopted."""
        return (
            Case(api, f"a lost request: {name}", "OA-6.1", "OA-3.2")
            .requesting()
            .lost(to="REQUEST_LOST")
            .asks("FetchChat")
            .reply(200, chat(*messages), to="PROMPTED")
            .pauses(0.5)
            .asks("RequestAssistant")
        )

    def adopted(name: str, message_id: str, *messages: Json) -> Case:
        return (
            Case("website", f"a lost request: {name}", "OA-6.1", "OA-3.2")
            .requesting()
            .lost(to="REQUEST_LOST")
            .asks("FetchChat")
            .reply(200, chat(*messages), emitted("Requested", message_id=message_id), to="ASSISTANT_REQUESTED")
            .at_message(message_id)
            .asks("OpenStream")
        )

    for state, content in (("pending", None), ("in_progress", None), ("complete", "Hi")):
        yield adopted(f"an answer in state {state} is adopted", ANSWER, ours, assistant(state, content))
    for state in ("aborted_by_worker", "cancelled", "timeout"):
        yield lost(f"an answer in state {state} is not adopted", ours, assistant(state))
    yield lost("no answer is there", ours, api="inference")
    unordered = (assistant("pending", None, NEWER), assistant("complete", "Hi", OLDER), ours, assistant("in_progress"))
    yield adopted("the newest answer, for messages come unordered", NEWER, *unordered)
    stopped = (assistant("cancelled", None, NEWER), ours, assistant("pending"), assistant("complete", "Hi", OLDER))
    yield adopted("the newest answer that runs or is complete", ANSWER, *stopped)
    foreign = (ours, assistant("pending", parent_id=OLDER), assistant("pending", message_id=NEWER, parent_id=CHAT))
    yield lost("answers to other prompts are not adopted", *foreign, api="inference")
    yield (
        Case("website", "a request that is lost again and again, and never arrives", "OA-6.1", "OA-6.3", retries=1)
        .requesting()
        .lost(to="REQUEST_LOST")
        .asks("FetchChat")
        .reply(200, chat(ours), to="PROMPTED")
        .pauses(0.5)
        .asks("RequestAssistant")
        .reply(
            500,
            words("website", "Something went wrong"),
            to="REQUEST_LOST",
        )
        .asks("FetchChat")
        .reply(
            200,
            chat(ours),
            failed("ApiError", status=500, message="Something went wrong"),
            to="FAILED",
        )
        .asks_nothing()
        .leaves()
    )


def _refusals() -> Iterator[Case]:
    for status in (300, 400, 404, 405, 409, 418, 422, 451, 499):
        yield (
            Case("inference", f"a {status} is a refusal, for a prompt", "OA-6.2")
            .prompting()
            .reply(status, None, _status(status), to="FAILED")
            .asks_nothing()
            .leaves()
        )
    yield (
        Case("website", "a refusal fails at once with the server's words", "OA-6.2", "OA-8.1")
        .requesting()
        .reply(
            422,
            words("website", "Model gpt-4 not found"),
            failed("ApiError", message="Model gpt-4 not found", status=422),
            to="FAILED",
        )
        .asks_nothing()
        .leaves()
    )
    yield (
        Case("website", "a refused create made no chat", "OA-6.2", "OA-6.8")
        .creating()
        .reply(400, None, _status(400), NEVER_CREATED, to="NEVER_CREATED")
        .asks_nothing()
    )
    yield (
        Case("inference", "a message that cannot be read is not polled without end", "OA-6.2")
        .polling("Hi")
        .reply(404, None, _status(404), to="FAILED")
        .asks_nothing()
    )


def _busy() -> Iterator[Case]:
    busy = failed("ApiError", message=BUSY, status=503)
    said = words("inference", BUSY)
    yield (
        Case("inference", "a busy server is tried again with growing pauses, and then it fails", "OA-6.3")
        .requesting()
        .reply(503, said)
        .pauses(0.5)
        .asks("RequestAssistant")
        .reply(503, said)
        .pauses(1.0)
        .asks("RequestAssistant")
        .reply(503, said, busy, to="FAILED")
        .asks_nothing()
        .leaves()
    )
    yield (
        Case("inference", "no further try if none is wanted", "OA-6.3", retries=0)
        .requesting()
        .reply(503, said, busy, to="FAILED")
        .asks_nothing()
    )
    for given, pause in (("7", 7.0), ("60", 60.0), ("0", 0.5), ("-1", 0.5)):
        yield (
            Case("website", f"a busy server is tried again not before a Retry-After of {given} seconds", "OA-6.3")
            .requesting()
            .reply(429, None, headers={"retry-after": given})
            .pauses(pause)
            .asks("RequestAssistant")
        )
    yield (
        Case("inference", "the name of a header has any case", "OA-6.3")
        .prompting()
        .reply(503, None, headers={"Retry-After": "7"})
        .pauses(7.0)
        .asks("SendPrompt")
    )
    for given in ("soon", "", "nan", "inf"):
        yield (
            Case("website", f"a Retry-After that is no number of seconds is none: {given!r}", "OA-6.3", "OA-6.11")
            .prompting()
            .reply(503, None, headers={"retry-after": given})
            .pauses(0.5)
            .asks("SendPrompt")
        )
    for given in ("61", "86400"):
        yield (
            Case("inference", f"a Retry-After of {given} seconds fails at once", "OA-6.3")
            .prompting()
            .reply(503, None, _status(503), to="FAILED", headers={"retry-after": given})
            .asks_nothing()
        )
    for api in BOTH:
        yield (
            Case(api, f"what was not sent is sent again, {api}", "OA-6.3")
            .creating()
            .not_sent()
            .pauses(0.5)
            .asks("CreateChat")
            .reply(429, None)
            .pauses(1.0)
            .asks("CreateChat")
            .reply(200, {"id": CHAT}, CREATED, to="CHAT_CREATED")
            .asks("SendPrompt")
            .not_sent()
            .pauses(0.5)
            .asks("SendPrompt")
            .not_sent()
            .pauses(1.0)
            .asks("SendPrompt")
            .not_sent(failed("NotSent"), to="FAILED")
            .asks_nothing()
            .leaves()
        )
    yield (
        Case("website", "a chat that was never asked for was not made", "OA-6.3", "OA-6.8")
        .creating()
        .not_sent()
        .pauses(0.5)
        .asks("CreateChat")
        .reply(503, _PROXY)
        .pauses(1.0)
        .asks("CreateChat")
        .not_sent(failed("NotSent"), NEVER_CREATED, to="NEVER_CREATED")
        .asks_nothing()
    )
    yield (
        Case("inference", "a stream that was not asked for is asked for again", "OA-6.3", "OA-6.5", retries=1)
        .opening()
        .not_sent()
        .pauses(0.5)
        .asks("OpenStream")
        .not_sent(failed("NotSent"), to="FAILED")
        .asks_nothing()
    )
    yield (
        Case("website", "each step has its own tries", "OA-6.3", retries=1)
        .prompting()
        .not_sent()
        .pauses(0.5)
        .asks("SendPrompt")
        .reply(200, {"id": PROMPT}, PROMPTED, to="PROMPTED")
        .asks("RequestAssistant")
        .not_sent()
        .pauses(0.5)
        .asks("RequestAssistant")
    )


def _credentials() -> Iterator[Case]:
    rejected: dict[Api, int] = {"website": 403, "inference": 401}
    for api in BOTH:
        status = rejected[api]
        error = failed("AuthenticationError", status=status)
        yield (
            Case(api, f"rejected credentials are asked for once more and used, {api}", "OA-6.4")
            .prompting()
            .reply(status, None)
            .asks_for_credentials(refused=True)
            .finds(FRESH[api])
            .asks("SendPrompt")
            .reply(200, {"id": PROMPT}, PROMPTED, to="PROMPTED")
            .asks("RequestAssistant")
        )
        yield (
            Case(api, f"the same credentials again fail, {api}", "OA-6.4")
            .creating()
            .reply(status, words(api, "Token expired"))
            .asks_for_credentials(refused=True)
            .finds(CREDENTIALS[api], error, NEVER_CREATED, to="NEVER_CREATED")
            .asks_nothing()
        )
        yield (
            Case(api, f"no other credentials fail, {api}", "OA-6.4")
            .requesting()
            .reply(status, None)
            .asks_for_credentials(refused=True)
            .finds(None, error, to="FAILED")
            .asks_nothing()
        )
        yield (
            Case(api, f"other credentials that are rejected as well fail, {api}", "OA-6.4")
            .prompting()
            .reply(status, None)
            .asks_for_credentials(refused=True)
            .finds(FRESH[api])
            .asks("SendPrompt")
            .reply(status, None, error, to="FAILED")
            .asks_nothing()
        )
        yield (
            Case(api, f"a rejected try does not count, {api}", "OA-6.4", "OA-6.3", retries=1)
            .prompting()
            .reply(status, None)
            .asks_for_credentials(refused=True)
            .finds(FRESH[api])
            .asks("SendPrompt")
            .reply(503, None)
            .pauses(0.5)
            .asks("SendPrompt")
            .reply(503, None, _status(503), to="FAILED")
        )
        yield (
            Case(api, f"each step may have other credentials, {api}", "OA-6.4")
            .prompting()
            .reply(status, None)
            .asks_for_credentials(refused=True)
            .finds(FRESH[api])
            .asks("SendPrompt")
            .reply(200, {"id": PROMPT}, PROMPTED, to="PROMPTED")
            .asks("RequestAssistant")
            .reply(status, None)
            .asks_for_credentials(refused=True)
            .finds(_MORE[api])
            .asks("RequestAssistant")
        )
        yield (
            Case(api, f"credentials are renewed while polling, {api}", "OA-6.4")
            .polling("Hi")
            .reply(status, None)
            .asks_for_credentials(refused=True)
            .finds(FRESH[api])
            .asks("FetchMessage")
            .reply(200, assistant("complete", "Hi"), answered("Hi"), to="ANSWERED")
        )
        yield (
            Case(api, f"the stream is opened with renewed credentials, {api}", "OA-6.4", "OA-6.5")
            .opening()
            .reply(status, None)
            .asks_for_credentials(refused=True)
            .finds(FRESH[api])
            .asks("OpenStream")
            .opens()
        )
        yield (
            Case(
                api,
                f"rejected on the way out, renewed, and the try does not count, {api}",
                "OA-6.4",
                "OA-7.6",
                cleanup={"attempts": 1},
            )
            .created()
            .leaving()
            .reply(status, None)
            .asks_for_credentials(refused=True)
            .finds(FRESH[api])
            .asks("DeleteChat")
            .gone()
        )
        yield (
            Case(api, f"rejected on the way out, and none are found, {api}", "OA-6.4", "OA-7.2")
            .created()
            .leaving()
            .reply(status, None)
            .asks_for_credentials(refused=True)
            .finds(None, leaked(CHAT), to="LEAKED")
            .asks_nothing()
        )
        yield (
            Case(api, f"rejected on the way out, and again, {api}", "OA-6.4", "OA-7.2")
            .created()
            .leaving()
            .reply(status, None)
            .asks_for_credentials(refused=True)
            .finds(FRESH[api])
            .asks("DeleteChat")
            .reply(status, None, leaked(CHAT), to="LEAKED")
            .asks_nothing()
        )


def _lost_streams() -> Iterator[Case]:
    yield (
        Case(
            "inference",
            "a stream that was cut is polled, not opened again, for the rest",
            "OA-5.7",
            "OA-6.5",
        )
        .polling("Hi")
        .reply(200, assistant("in_progress"))
        .pauses(0.5)
        .asks("FetchMessage")
        .reply(200, assistant("complete", "Hi there"), token(" there"), answered("Hi there"), to="ANSWERED")
        .asks_nothing()
        .leaves()
    )
    for name, status, body in (
        ("a 500", 500, ISE),
        ("a 404", 404, None),
        ("a 400 with words", 400, words("inference", "Only assistant messages can be streamed.")),
        ("a 503", 503, None),
        ("a 206", 206, sse(the_end("Hi"))),
    ):
        yield (
            Case("inference", f"a stream refused with {name} is not asked for again", "OA-6.5")
            .opening()
            .reply(status, body, to="POLLING")
            .asks("FetchMessage")
        )
    for api in BOTH:
        yield (
            Case(api, f"a stream that may have been opened is not opened again, {api}", "OA-5.1", "OA-6.5")
            .opening()
            .lost(to="POLLING")
            .asks("FetchMessage")
            .reply(200, assistant("pending"))
            .pauses(0.5)
            .asks("FetchMessage")
        )
    waiting = assistant("in_progress")
    polled = Case("website", "polls with growing pauses, up to five seconds", "OA-6.5", "OA-6.9").polling()
    for pause in (0.5, 1.0, 2.0, 4.0, 5.0, 5.0):
        polled.reply(200, waiting).pauses(pause).asks("FetchMessage")
    yield polled.reply(200, assistant("complete", "Hi"), token("Hi"), answered("Hi"), to="ANSWERED")
    yield (
        Case("inference", "a poll that fails is tried again, and then it fails", "OA-6.3", "OA-6.5", retries=1)
        .polling("Hi")
        .reply(500, ISE)
        .pauses(0.5)
        .asks("FetchMessage")
        .reply(200, waiting)
        .pauses(0.5)
        .asks("FetchMessage")
        .reply(500, ISE)
        .pauses(0.5)
        .asks("FetchMessage")
        .reply(500, ISE, _status(500), to="FAILED")
        .asks_nothing()
    )
    yield (
        Case("website", "while the server is away its message is polled on", "OA-6.9", retries=0)
        .polling("Hi")
        .lost()
        .pauses(0.5)
        .asks("FetchMessage")
        .reply(502, None)
        .pauses(1.0)
        .asks("FetchMessage")
        .reply(503, None)
        .pauses(2.0)
        .asks("FetchMessage")
        .reply(200, assistant("complete", "Hi there"), token(" there"), answered("Hi there"), to="ANSWERED")
    )
    for api in BOTH:
        yield (
            Case(api, f"a silent stream is closed and polled, {api}", "OA-6.6", "OA-6.5")
            .streaming("Hi")
            .asks_nothing()
            .time_passes(to="POLLING")
            .closes_stream()
            .asks("FetchMessage")
        )
    yield (
        Case("website", "bytes of a stream that was given up are ignored", "OA-6.6")
        .streaming("Hi")
        .asks_nothing()
        .time_passes(to="POLLING")
        .data(sse(the_end("Hi")))
        .closes_stream()
        .asks("FetchMessage")
        .reply(200, assistant("complete", "Hi"), answered("Hi"), to="ANSWERED")
    )


def _left_behind() -> Iterator[Case]:
    ours = prompter()

    def refused(name: str, api: Api, body: Json | str, messages: tuple[Json, ...], *events: Json, to: str) -> Case:
        return (
            Case(api, name, "OA-6.7", "OA-6.1")
            .requesting()
            .reply(503, body)
            .pauses(0.5)
            .asks("RequestAssistant")
            .lost(to="REQUEST_LOST")
            .asks("FetchChat")
            .reply(200, chat(*messages), *events, to=to)
        )

    for api in BOTH:
        said = words(api, BUSY)
        yield (
            refused(
                f"the pending message that a 503 left behind is not adopted, {api}",
                api,
                said,
                (assistant("pending"), ours),
                to="PROMPTED",
            )
            .pauses(1.0)
            .asks("RequestAssistant")
        )
        yield (
            refused(
                f"the newer of two is ours, and the older one was left behind, {api}",
                api,
                said,
                (assistant("pending", None, NEWER), ours, assistant("pending")),
                emitted("Requested", message_id=NEWER),
                to="ASSISTANT_REQUESTED",
            )
            .at_message(NEWER)
            .asks("OpenStream")
        )
        yield refused(
            f"the 503 of a proxy left nothing behind, {api}",
            api,
            _PROXY,
            (assistant("pending"), ours),
            REQUESTED,
            to="ASSISTANT_REQUESTED",
        ).asks("OpenStream")
    yield (
        Case("inference", "two requests refused with 503 leave two behind", "OA-6.7", "OA-6.1")
        .requesting()
        .reply(503, words("inference", BUSY))
        .pauses(0.5)
        .asks("RequestAssistant")
        .reply(503, words("inference", BUSY))
        .pauses(1.0)
        .asks("RequestAssistant")
        .lost(to="REQUEST_LOST")
        .asks("FetchChat")
        .reply(
            200,
            chat(ours, assistant("pending", None, OLDER), assistant("pending")),
            failed("MaybeSent"),
            to="FAILED",
        )
        .asks_nothing()
    )
    yield (
        Case("website", "what a 503 left behind is not waited for on the way out", "OA-6.7", "OA-7.1")
        .requesting()
        .reply(503, words("website", BUSY))
        .pauses(0.5)
        .asks("RequestAssistant")
        .lost(to="REQUEST_LOST")
        .close(to="DRAINING")
        .pauses(0.5)
        .asks("FetchChat")
        .reply(200, chat(ours, assistant("pending")), to="DELETING")
        .asks("DeleteChat")
        .gone()
    )


def _lost_creates() -> Iterator[Case]:
    first, second, third = (f"Sun, 22 Nov 2026 08:18:{second} GMT" for second in (16, 18, 20))
    yield (
        Case("inference", "a create whose reply was lost is named as left behind", "OA-6.8", "OA-7.2")
        .creating()
        .reply(500, ISE, headers={"date": first})
        .pauses(0.5)
        .asks("CreateChat")
        .reply(200, {"id": CHAT}, CREATED, to="CHAT_CREATED", headers={"date": second})
        .leaving()
        .gone(windows((None, None, first)))
    )
    yield (
        Case("website", "a create's window lies between the replies around it", "OA-6.8")
        .creating()
        .reply(503, None, headers={"date": first})
        .pauses(0.5)
        .asks("CreateChat")
        .lost()
        .pauses(1.0)
        .asks("CreateChat")
        .reply(200, {"id": CHAT}, CREATED, to="CHAT_CREATED", headers={"Date": second})
        .asks("SendPrompt")
        .reply(400, None, _status(400), to="FAILED", headers={"date": third})
        .leaving()
        .gone(windows((None, first, second)))
    )
    yield (
        Case("website", "a create that is lost each time", "OA-6.8", "OA-6.3")
        .creating()
        .lost()
        .pauses(0.5)
        .asks("CreateChat")
        .lost()
        .pauses(1.0)
        .asks("CreateChat")
        .lost(failed("MaybeSent"), leaked(None, None, None), to="LEAKED")
        .asks_nothing()
    )
    for name, body in (
        ("an id that is a path", {"id": "../account/"}),
        ("no id", {}),
        ("null", "null"),
        ("nothing", None),
        ("a page", "<html>It works!</html>"),
        ("a list", "[]"),
    ):
        yield (
            Case("website", f"a 2xx reply to create with {name} may have made a chat", "OA-6.8", "OA-8.2")
            .creating()
            .reply(200, body, failed("RemoteProtocolError"), leaked(None), to="LEAKED")
            .asks_nothing()
        )
    yield (
        Case("inference", "a create whose reply has no valid id is not tried again", "OA-6.8", "OA-2.6")
        .creating()
        .reply(201, {"id": "1"}, failed("RemoteProtocolError"), leaked(None), to="LEAKED")
        .asks_nothing()
    )
    yield (
        Case("inference", "a refusal after a lost create does not make it unlost", "OA-6.8", "OA-6.2")
        .creating()
        .lost()
        .pauses(0.5)
        .asks("CreateChat")
        .reply(400, None, _status(400), leaked(None), to="LEAKED")
        .asks_nothing()
    )
    yield (
        Case("website", "a 2xx reply to create other than 200 may carry the id", "OA-6.8")
        .creating()
        .reply(201, {"id": CHAT, "title": None}, CREATED, to="CHAT_CREATED")
    )


def _too_long() -> Iterator[Case]:
    """OA-6.9: an answer that takes longer than its owner wants to wait."""

    def took_too_long(text: str) -> Json:
        return failed("AnswerFailed", text=text)

    def limited(api: Api, name: str, *clauses: str) -> Case:
        return Case(api, name, "OA-6.9", *clauses, timeouts={"answer": 20})

    yield (
        limited("website", "the answer's time ends while the stream is awaited", "OA-7.1")
        .opening()
        .time_passes(took_too_long(""), to="FAILED")
        .asks_nothing()
        .close(to="DRAINING")
        .asks("FetchMessage")
        .reply(200, assistant("complete", "Hi"), to="DELETING")
        .asks("DeleteChat")
    )
    yield (
        limited("inference", "the answer's time ends with a stream")
        .streaming("Hi ", "the")
        .asks_nothing()
        .time_passes(took_too_long("Hi the"), to="FAILED")
        .closes_stream()
        .asks_nothing()
    )
    yield (
        limited("inference", "the answer's time ends with bytes that come after it")
        .streaming("Hi")
        .later(21)
        .data(sse(a_token("!")), token("!"), took_too_long("Hi!"), to="FAILED")
        .closes_stream()
    )
    yield (
        limited("inference", "the answer's time ends in the pause between two polls")
        .polling("Hi")
        .later(19.75)
        .reply(200, assistant("in_progress"))
        .pauses(0.5)
        .asks_nothing()
        .time_passes(took_too_long("Hi"), to="FAILED")
        .asks_nothing()
    )
    yield (
        limited("website", "the answer's time ends while a poll is under way, whose reply comes too late")
        .polling("Hi")
        .time_passes(took_too_long("Hi"), to="FAILED")
        .asks_nothing()
        .refuses(happened(ReplyReceived, status=200))
        .asks_nothing()
    )
    yield (
        limited("website", "the answer's time ends while it is requested: it may run", "OA-7.1")
        .requesting()
        .time_passes(took_too_long(""), to="FAILED")
        .asks_nothing()
        .close(to="DRAINING")
        .asks("FetchChat")
        .reply(200, chat(prompter()), to="DELETING")
        .asks("DeleteChat")
    )
    yield (
        Case("inference", "an answer whose stream was lost is polled for some time", "OA-6.9", timeouts={"poll": 20})
        .polling("Hi")
        .later(19.75)
        .lost()
        .pauses(0.5)
        .time_passes(took_too_long("Hi"), to="FAILED")
        .asks_nothing()
    )
    yield (
        Case("website", "an answer is waited for without a limit, unless one is set", "OA-6.9")
        .streaming()
        .later(100_000)
        .data(sse(a_pending()), queued())
        .asks_nothing()
        .data(sse(the_end("Hi")), token("Hi"), answered("Hi"), to="ANSWERED")
    )


def _timers() -> Iterator[Case]:
    """A reply that doesn't come in time is lost, and nothing is asked for before its time."""
    for api in BOTH:
        yield (
            Case(api, f"no reply to a create in time, {api}", "OA-6.12", "OA-6.1", "OA-6.8")
            .creating()
            .time_passes()
            .pauses(0.5)
            .asks("CreateChat")
            .reply(200, {"id": CHAT}, CREATED, to="CHAT_CREATED")
            .leaving()
            .gone(leaked(None))
        )
        yield (
            Case(api, f"no reply to a prompt in time, {api}", "OA-6.12", "OA-6.1")
            .prompting()
            .time_passes(to="PROMPT_LOST")
            .asks("FetchChat")
            .reply(200, chat(prompter()), PROMPTED, to="PROMPTED")
        )
        yield (
            Case(api, f"no reply to a request in time, {api}", "OA-6.12", "OA-6.1")
            .requesting()
            .time_passes(to="REQUEST_LOST")
            .asks("FetchChat")
            .time_passes()
            .pauses(0.5)
            .asks("FetchChat")
            .reply(200, chat(prompter(), assistant("pending")), REQUESTED, to="ASSISTANT_REQUESTED")
        )
        yield (
            Case(api, f"no head of the stream in time, {api}", "OA-6.12", "OA-6.1", "OA-6.5")
            .opening()
            .time_passes(to="POLLING")
            .asks("FetchMessage")
            .time_passes()
            .pauses(0.5)
            .asks("FetchMessage")
            .reply(200, assistant("complete", "Hi"), token("Hi"), answered("Hi"), to="ANSWERED")
        )
    yield (
        Case("website", "replies are waited for as long as is wanted", "OA-6.12", "OA-6.1", timeouts={"reply": 5})
        .prompting()
        .later(4)
        .step(happened(TimePassed))
        .asks_nothing()
        .time_passes(to="PROMPT_LOST")
        .refuses(happened(ReplyReceived, status=200))
        .asks("FetchChat")
    )
    yield (
        Case("inference", "a pause lasts until its end, and not until the deadline is looked at", "OA-6.12", "OA-6.3")
        .prompting()
        .reply(503, None)
        .pauses(0.5)
        .asks_nothing()
        .later(0.25)
        .step(happened(TimePassed))
        .asks_nothing()
        .time_passes()
        .asks("SendPrompt")
    )
    yield (
        Case("website", "a reply with which the step begins anew has no pause", "OA-6.3")
        .prompting()
        .later(12)
        .reply(200, {"id": PROMPT}, PROMPTED, to="PROMPTED")
        .asks("RequestAssistant")
    )
    yield (
        Case("inference", "each byte of a stream begins the time of silence anew", "OA-6.6", timeouts={"idle": 20})
        .streaming()
        .asks_nothing()
        .later(19)
        .data(": ping\n")
        .asks_nothing()
        .later(19)
        .data(sse(a_token("Hi")), token("Hi"))
        .asks_nothing()
        .time_passes(to="POLLING")
        .closes_stream()
        .asks("FetchMessage")
    )
    yield (
        Case("website", "a stream is not silent until the next intent is asked for", "OA-6.6")
        .streaming("Hi")
        .later(1000)
        .step(happened(TimePassed))
        .asks_nothing()
        .later(44)
        .data(sse(the_end("Hi")), answered("Hi"), to="ANSWERED")
    )


def _interrupted() -> Iterator[Case]:
    """The owner wants control back: no try is counted, and nothing is sent twice without a look."""

    def interrupted(name: str, **config: Any) -> Case:
        return Case("inference", f"interrupted {name}", "OA-6.13", retries=0, **config)

    yield (
        interrupted("while the prompt is under way: it is looked for, and sent again")
        .prompting()
        .interrupt(to="PROMPT_LOST")
        .asks("FetchChat")
        .reply(200, chat(), to="CHAT_CREATED")
        .pauses(0.5)
        .asks("SendPrompt")
        .reply(200, {"id": PROMPT}, PROMPTED, to="PROMPTED")
    )
    yield (
        interrupted("while the answer is requested: it is looked for, and found")
        .requesting()
        .interrupt(to="REQUEST_LOST")
        .asks("FetchChat")
        .reply(200, chat(prompter(), assistant("pending")), REQUESTED, to="ASSISTANT_REQUESTED")
        .asks("OpenStream")
    )
    yield (
        interrupted("while the stream is awaited: it may be open, and is polled")
        .opening()
        .interrupt(to="POLLING")
        .asks("FetchMessage")
    )
    yield (
        interrupted("while the message is read: it is read again")
        .polling("Hi")
        .interrupt()
        .asks("FetchMessage")
        .interrupt()
        .asks("FetchMessage")
        .reply(200, assistant("complete", "Hi"), answered("Hi"), to="ANSWERED")
    )
    yield (
        interrupted("while the chat is made: its reply is awaited for the time of the cleanup", cleanup={"timeout": 6})
        .creating()
        .later(1)
        .interrupt()
        .asks_nothing()
        .later(5)
        .reply(200, {"id": CHAT}, CREATED, to="CHAT_CREATED")
        .asks("SendPrompt")
    )
    yield (
        interrupted("while the chat is made, and its reply does not come in that time", cleanup={"timeout": 6})
        .creating()
        .interrupt()
        .later(5)
        .interrupt()
        .time_passes(failed("MaybeSent"), leaked(None), to="LEAKED")
        .asks_nothing()
    )
    yield (
        Case(
            "website",
            "interrupted while credentials are looked for: they are asked for again",
            "OA-4.1",
            credentials={},
        )
        .prompt()
        .asks_for_credentials()
        .interrupt()
        .asks_for_credentials()
        .finds(FRESH["website"], to="COOKIES")
        .asks("CreateChat")
    )
    yield (
        interrupted("with an open stream: it goes on")
        .streaming("Hi")
        .asks_nothing()
        .interrupt()
        .data(sse(the_end("Hi")), answered("Hi"), to="ANSWERED")
        .closing_stream()
        .interrupt()
        .ends()
    )
    yield (
        interrupted("while the message of an open stream is read: the stream goes on")
        .streaming()
        .data(sse(*[a_pending()] * 10), *[queued()] * 10)
        .asks("FetchMessage")
        .interrupt()
        .asks_nothing()
        .data(sse(the_end("Hi")), token("Hi"), answered("Hi"), to="ANSWERED")
    )
    yield (
        Case("website", "interrupted in a pause: the pause goes on", "OA-6.13")
        .prompting()
        .reply(503, None)
        .pauses(0.5)
        .later(0.25)
        .interrupt()
        .asks("SendPrompt")
    )
    yield (
        Case("website", "interrupted on the way out: what is sent goes on", "OA-6.13")
        .created()
        .leaving()
        .interrupt()
        .asks_nothing()
        .gone()
    )
    yield (
        Case("inference", "interrupted before anything, and after the end: nothing happens", "OA-4.2", "OA-7.7")
        .interrupt()
        .creating()
        .reply(200, {"id": CHAT}, CREATED, to="CHAT_CREATED")
        .leaves()
        .interrupt()
        .asks_nothing()
    )


def _already_prompted() -> Iterator[Case]:
    for api in BOTH:
        said = words(api, _ALREADY)
        yield (
            Case(api, f"a resent first prompt that had arrived is adopted, {api}", "OA-6.10", "OA-6.1")
            .prompting()
            .lost(to="PROMPT_LOST")
            .asks("FetchChat")
            .reply(200, chat(), to="CHAT_CREATED")
            .pauses(0.5)
            .asks("SendPrompt")
            .reply(400, said, to="PROMPT_LOST")
            .asks("FetchChat")
            .reply(200, chat(prompter()), PROMPTED, to="PROMPTED")
            .asks("RequestAssistant")
        )
        yield (
            Case(api, f"a first prompt that was sent once was refused, {api}", "OA-6.10", "OA-6.2")
            .prompting()
            .reply(400, said, failed("ApiError", status=400, message=_ALREADY), to="FAILED")
            .asks_nothing()
        )
