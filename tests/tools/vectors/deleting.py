"""Section 7: how a conversation ends, and what its chat's end is believed on."""

from __future__ import annotations

from collections.abc import Iterator

from oa_protocol.engine.inputs import Prompt
from tests.request_table import Api

from .notation import (
    ANSWER,
    BOTH,
    CHAT,
    CREATED,
    DELETED,
    ISE,
    NEVER_CREATED,
    NEWER,
    OLDER,
    PROMPT,
    PROMPTED,
    REQUESTED,
    Case,
    Json,
    a_token,
    assistant,
    chat,
    failed,
    happened,
    leaked,
    page,
    prompter,
    sse,
    words,
)

_NOT_FOUND = "Chat not found"
_PAGE = "<html>It works!</html>"


def cases() -> Iterator[Case]:
    for each in (_draining, _closing, _abandoning, _gone, _unclear, _chats, _lists, _attempts, _budget, _afterwards):
        yield from each()


def _draining() -> Iterator[Case]:
    for api in BOTH:
        yield (
            Case(api, f"a running answer is waited for before its chat is deleted, {api}", "OA-7.1")
            .streaming("Hi ")
            .close(to="DRAINING")
            .closes_stream()
            .asks("FetchMessage")
            .reply(200, assistant("pending"))
            .pauses(0.5)
            .asks("FetchMessage")
            .reply(200, assistant("in_progress"))
            .pauses(1.0)
            .asks("FetchMessage")
            .reply(200, assistant("complete", "Hi there"), to="DELETING")
            .asks("DeleteChat")
            .gone()
        )
    for state in ("aborted_by_worker", "cancelled", "timeout"):
        yield (
            Case("website", f"an answer in state {state} does not run", "OA-3.1", "OA-7.1")
            .polling()
            .close(to="DRAINING")
            .asks("FetchMessage")
            .reply(200, assistant(state), to="DELETING")
            .asks("DeleteChat")
        )
    yield (
        Case("inference", "tokens that come while it is waited for are not emitted", "OA-7.1")
        .streaming("Hi")
        .close(to="DRAINING")
        .data(sse(a_token(" there")))
        .closes_stream()
        .asks("FetchMessage")
    )
    yield (
        Case("inference", "the owner stops waiting for a running answer", "OA-7.1")
        .streaming()
        .close(to="DRAINING")
        .closes_stream()
        .asks("FetchMessage")
        .reply(200, assistant("in_progress"))
        .pauses(0.5)
        .close(to="DELETING", drain=False)
        .asks("DeleteChat")
        .gone()
    )
    yield (
        Case("website", "the owner stops waiting while the message is read", "OA-7.1")
        .polling()
        .close(to="DRAINING")
        .asks("FetchMessage")
        .close(to="DELETING", drain=False)
        .asks("DeleteChat")
        .gone()
    )
    yield (
        Case("inference", "the owner does not wait for the answer at all", "OA-7.1")
        .streaming("Hi")
        .close(to="DELETING", drain=False)
        .closes_stream()
        .asks("DeleteChat")
        .gone()
    )
    yield (
        Case("inference", "closed again, to wait: it was closed at once, and remains so", "OA-7.1")
        .streaming("Hi")
        .close(to="DELETING", drain=False)
        .close()
        .closes_stream()
        .asks("DeleteChat")
    )
    yield (
        Case("website", "an answer that cannot be read is not waited for without end", "OA-7.1", "OA-6.3")
        .streaming()
        .close(to="DRAINING")
        .closes_stream()
        .asks("FetchMessage")
        .reply(500, ISE)
        .pauses(0.5)
        .asks("FetchMessage")
        .lost()
        .pauses(1.0)
        .asks("FetchMessage")
        .reply(500, ISE, to="DELETING")
        .asks("DeleteChat")
        .gone()
    )
    yield (
        Case("inference", "an answer whose reading is refused is not waited for", "OA-7.1", "OA-6.2")
        .streaming()
        .close(to="DRAINING")
        .closes_stream()
        .asks("FetchMessage")
        .reply(404, None, to="DELETING")
        .asks("DeleteChat")
    )
    yield (
        Case("website", "an answer that took too long still runs", "OA-7.1", "OA-6.9", timeouts={"answer": 60})
        .streaming("Hi")
        .time_passes(failed("AnswerFailed", text="Hi"), to="FAILED")
        .closes_stream()
        .asks_nothing()
        .close(to="DRAINING")
        .asks("FetchMessage")
        .reply(200, assistant("complete", "Hi there"), to="DELETING")
        .asks("DeleteChat")
        .gone()
    )
    running = chat(assistant("pending"), prompter())
    yield (
        Case("inference", "a request of unknown outcome is looked for, and its answer waited for", "OA-7.1", "OA-6.1")
        .requesting()
        .close()
        .asks_nothing()
        .lost(to="DRAINING")
        .pauses(0.5)
        .asks("FetchChat")
        .reply(200, running)
        .pauses(0.5)
        .asks("FetchChat")
        .reply(200, chat(assistant("complete", "Hi"), prompter()), to="DELETING")
        .asks("DeleteChat")
        .gone()
    )
    yield (
        Case("website", "a request that is under way is awaited, and then its answer", "OA-7.1")
        .requesting()
        .close()
        .asks_nothing()
        .reply(200, {"id": ANSWER}, REQUESTED, to="DRAINING")
        .asks("FetchMessage")
        .reply(200, assistant("complete", "Hi"), to="DELETING")
        .asks("DeleteChat")
        .gone()
    )
    yield (
        Case("inference", "what was not requested does not run", "OA-7.1")
        .prompted()
        .close(to="DELETING")
        .asks("DeleteChat")
        .gone()
    )


def _closing() -> Iterator[Case]:
    """OA-7.2, in each phase in which no answer runs."""
    for api in BOTH:
        yield (
            Case(
                api,
                f"closed while the chat is being made: its reply is awaited, and it is deleted, {api}",
                "OA-4.3",
                "OA-7.2",
            )
            .creating()
            .close()
            .asks_nothing()
            .reply(200, {"id": CHAT}, CREATED, to="DELETING")
            .asks("DeleteChat")
            .gone()
        )
    yield (
        Case("website", "closed while the chat is being made, and no chat was made", "OA-4.3", "OA-7.2")
        .creating()
        .close(drain=False)
        .reply(503, None, NEVER_CREATED, to="NEVER_CREATED")
        .asks_nothing()
    )
    yield (
        Case(
            "inference",
            "closed while the chat is being made, with unknown outcome: it is named",
            "OA-4.3",
            "OA-7.2",
        )
        .creating()
        .close()
        .lost(leaked(None), to="LEAKED")
        .asks_nothing()
    )
    yield (
        Case("website", "closed while the prompt is under way: it is awaited, and the chat is deleted", "OA-7.2")
        .prompting()
        .close()
        .asks_nothing()
        .reply(200, {"id": PROMPT}, PROMPTED, to="DELETING")
        .asks("DeleteChat")
        .gone()
    )
    yield (
        Case("inference", "closed while it is unknown whether the prompt arrived", "OA-7.2")
        .prompting()
        .lost(to="PROMPT_LOST")
        .close(to="DELETING")
        .asks("DeleteChat")
        .gone()
    )
    for api in BOTH:
        yield Case(api, f"closed after an answer, {api}", "OA-7.2").answered().leaves()
    yield (
        Case("website", "closed after a failure", "OA-7.2")
        .prompting()
        .reply(413, None, failed("HTTPStatusError", status=413), to="FAILED")
        .leaves()
    )
    yield (
        Case("website", "closed with a prompt that was not sent: nothing is sent", "OA-7.2")
        .prompt()
        .close(NEVER_CREATED, to="NEVER_CREATED")
        .asks_nothing()
    )
    yield (
        Case("inference", "closed with a prompt that is not sent yet: it is not", "OA-7.2")
        .created()
        .close(to="DELETING")
        .close()
        .asks("DeleteChat")
        .close(drain=False)
        .asks_nothing()
        .gone()
    )


def _abandoning() -> Iterator[Case]:
    yield (
        Case("inference", "abandoned before there was a chat", "OA-7.2")
        .prompt()
        .abandon(NEVER_CREATED, to="NEVER_CREATED")
        .asks_nothing()
    )
    yield (
        Case("website", "abandoned while the chat is being made: it may be there", "OA-4.3", "OA-7.2", "OA-6.8")
        .creating()
        .abandon(leaked(None), to="LEAKED")
        .asks_nothing()
    )
    for case in (
        Case("website", "abandoned with a chat: it is named, and nothing follows", "OA-7.2").created(),
        Case("inference", "abandoned with a stream: it is named, and nothing follows", "OA-7.2").streaming(),
        Case("inference", "abandoned while it is deleted: it is named", "OA-7.2").created().leaving(),
    ):
        yield case.abandon(leaked(CHAT), to="LEAKED").asks_nothing().close().abandon().asks_nothing()
    yield (
        Case("website", "abandoned after a lost create: both are named", "OA-7.2", "OA-6.8")
        .creating()
        .lost()
        .pauses(0.5)
        .asks("CreateChat")
        .reply(200, {"id": CHAT}, CREATED, to="CHAT_CREATED")
        .abandon(leaked(None, CHAT), to="LEAKED")
        .asks_nothing()
    )


def _gone() -> Iterator[Case]:
    replies: tuple[tuple[Api, str, int, Json | str | None], ...] = (
        ("website", "an empty 200", 200, None),
        ("inference", "an empty 200", 200, None),
        ("inference", "a 200 with null", 200, "null"),
        ("inference", "a 204", 204, None),
        ("inference", "a 404 that names the chat", 404, words("inference", _NOT_FOUND)),
    )
    for api, name, status, body in replies:
        yield (
            Case(api, f"gone, {api}: {name}", "OA-7.3", "OA-7.7")
            .created()
            .leaving()
            .reply(status, body, DELETED, to="DELETED")
            .asks_nothing()
        )


def _unclear() -> Iterator[Case]:
    replies: tuple[tuple[Api, str, int, Json | str | None], ...] = (
        ("website", "a 200 with null", 200, "null"),
        ("website", "a 200 with a page", 200, _PAGE),
        ("website", "a 204", 204, None),
        ("website", "an empty 404", 404, None),
        ("website", "a 404 that names the chat", 404, words("website", _NOT_FOUND)),
        ("website", "the 500 of a second DELETE", 500, ISE),
        ("website", "a 502", 502, _PAGE),
        ("website", "a 400 with words", 400, words("website", "No")),
        ("inference", "a 200 with a page", 200, _PAGE),
        ("inference", "a 404 of something in between", 404, _PAGE),
        ("inference", "an empty 404", 404, None),
        ("inference", "a 404 with other words", 404, words("inference", "Not Found")),
        ("inference", "a 410", 410, None),
        ("inference", "a 500", 500, ISE),
        ("inference", "a 503", 503, None),
    )
    for api, name, status, body in replies:
        yield (
            Case(api, f"unclear, {api}: {name}", "OA-7.3", "OA-7.4")
            .created()
            .leaving()
            .reply(status, body, to="DELETE_UNCLEAR")
            .asks("FetchChat")
        )
    for api in BOTH:
        yield (
            Case(api, f"unclear, {api}: a DELETE without a reply", "OA-7.3", "OA-7.4")
            .created()
            .leaving()
            .lost(to="DELETE_UNCLEAR")
            .asks("FetchChat")
        )


def _chats() -> Iterator[Case]:
    """OA-7.4: what reading the chat says after an unclear DELETE."""
    yield (
        Case("inference", "after an unclear DELETE: the chat is not found, so it is gone", "OA-7.4", "OA-7.7")
        .created()
        .leaving()
        .lost(to="DELETE_UNCLEAR")
        .asks("FetchChat")
        .reply(404, words("inference", _NOT_FOUND), DELETED, to="DELETED")
        .asks_nothing()
    )
    replies: tuple[tuple[Api, str, int, Json | str | None], ...] = (
        ("inference", "the chat", 200, chat()),
        ("inference", "a 200 with a page", 200, _PAGE),
        ("inference", "a 404 of something in between", 404, _PAGE),
        ("inference", "a 404 with other words", 404, words("inference", "Not Found")),
        ("inference", "a 500", 500, ISE),
        ("inference", "a 200 that is no chat", 200, _PAGE),
        ("website", "the chat", 200, chat()),
        ("website", "a 500", 500, ISE),
        ("website", "a 302", 302, None),
    )
    for api, name, status, body in replies:
        yield (
            Case(api, f"after an unclear DELETE, reading the chat says nothing, {api}: {name}", "OA-7.3", "OA-7.4")
            .created()
            .leaving()
            .lost(to="DELETE_UNCLEAR")
            .asks("FetchChat")
            .reply(status, body, to="DELETING")
            .pauses(0.5)
            .asks("DeleteChat")
        )
    yield (
        Case("inference", "after an unclear DELETE, the chat cannot be read: deleted again", "OA-7.3", "OA-7.4")
        .created()
        .leaving()
        .lost(to="DELETE_UNCLEAR")
        .asks("FetchChat")
        .lost(to="DELETING")
        .pauses(0.5)
        .asks("DeleteChat")
        .gone()
    )


def _lists() -> Iterator[Case]:
    """OA-7.5: a website's 404, and the list that confirms it or does not."""

    def listing(name: str) -> Case:
        return (
            Case("website", f"after a website's 404, {name}", "OA-7.5")
            .created()
            .leaving()
            .reply(500, ISE, to="DELETE_UNCLEAR")
            .asks("FetchChat")
            .reply(404, None)
            .asks("ListChats")
        )

    for name, listed in (
        ("an empty list: gone", page()),
        ("a list of others without a further page: gone", page(NEWER)),
        ("a page that reaches back beyond it: gone", page(NEWER, OLDER, following=OLDER)),
    ):
        yield listing(name).reply(200, listed, DELETED, to="DELETED").asks_nothing()
    replies: tuple[tuple[str, int, Json | str | None], ...] = (
        ("a list with it: still there", 200, page(NEWER, CHAT, OLDER)),
        ("an empty page with a further page: not known", 200, page(following=NEWER)),
        ("no list: not known", 200, _PAGE),
        ("a list without chats: not known", 200, {}),
        ("a 404, for chat is switched off: not known", 404, None),
        ("a 500: not known", 500, ISE),
    )
    for name, status, body in replies:
        yield listing(name).reply(status, body, to="DELETING").pauses(0.5).asks("DeleteChat")
    further = "a page of newer ones with a further page: that one is read"
    for name, listed, events, phase in (
        ("and is the last: gone", page(), [DELETED], "DELETED"),
        ("and reaches back beyond it: gone", page(OLDER, following=OLDER), [DELETED], "DELETED"),
        ("and has it: still there", page(CHAT, OLDER), [], "DELETING"),
        ("and is empty with a further page: not known", page(following=OLDER), [], "DELETING"),
    ):
        case = listing(f"{further}, {name}").reply(200, page(NEWER, following=NEWER)).asks("ListChats", after=NEWER)
        case.reply(200, listed, *events, to=phase)
        yield case.asks_nothing() if phase == "DELETED" else case.pauses(0.5).asks("DeleteChat")
    yield listing("a list that is lost: not known").lost(to="DELETING").pauses(0.5).asks("DeleteChat")
    yield (
        listing("a list that is refused, for the upstream key is rejected: named")
        .reply(403, None)
        .asks_for_credentials(refused=True)
        .finds(None, leaked(CHAT), to="LEAKED")
        .asks_nothing()
    )


def _attempts() -> Iterator[Case]:
    for attempts in (1, 2):
        case = Case(
            "inference",
            f"a chat that stays is deleted {attempts} times at most, and then named",
            *("OA-7.2", "OA-7.6"),
            cleanup={"attempts": attempts},
        )
        case.created().close(to="DELETING")
        for number in range(attempts):
            last = number == attempts - 1
            case.asks("DeleteChat").reply(500, ISE, to="DELETE_UNCLEAR")
            case.asks("FetchChat")
            case.reply(200, chat(), *([leaked(CHAT)] if last else []), to="LEAKED" if last else "DELETING")
            if not last:
                case.pauses(0.5)
        yield case.asks_nothing()
    for api in BOTH:
        yield (
            Case(api, f"three attempts, and those that were not sent are none, {api}", "OA-7.6", "OA-6.3")
            .created()
            .leaving()
            .not_sent()
            .pauses(0.5)
            .asks("DeleteChat")
            .lost(to="DELETE_UNCLEAR")
            .asks("FetchChat")
            .reply(200, chat(), to="DELETING")
            .pauses(1.0)
            .asks("DeleteChat")
            .lost(to="DELETE_UNCLEAR")
            .asks("FetchChat")
            .reply(200, chat(), to="DELETING")
            .pauses(2.0)
            .asks("DeleteChat")
            .lost(to="DELETE_UNCLEAR")
            .asks("FetchChat")
            .lost(leaked(CHAT), to="LEAKED")
            .asks_nothing()
        )
    offline = Case(
        "website", "a network that is away: only the time ends it", "OA-7.2", "OA-7.6", cleanup={"attempts": 1}
    )
    offline.created().close(to="DELETING")
    for pause in (0.5, 1.0, 2.0, 4.0, 8.0):
        offline.asks("DeleteChat").not_sent().pauses(pause)
    yield offline.asks_nothing().time_passes(leaked(CHAT), to="LEAKED").asks_nothing()
    yield (
        Case("website", "a busy server is not asked before its Retry-After", "OA-6.3", "OA-7.4")
        .created()
        .leaving()
        .reply(503, None, to="DELETE_UNCLEAR", headers={"retry-after": "5"})
        .pauses(5.0)
        .asks("FetchChat")
    )
    yield (
        Case("inference", "a Retry-After of more than a minute names the chat at once", "OA-6.3", "OA-7.2")
        .created()
        .leaving()
        .reply(503, None, leaked(CHAT), to="LEAKED", headers={"retry-after": "61"})
        .asks_nothing()
    )


def _budget() -> Iterator[Case]:
    """OA-7.8: after its owner left, a conversation is over in the time of its cleanup, whatever the network does."""
    for api in BOTH:
        yield (
            Case(api, f"a network that hangs, and a DELETE in each third of the time, {api}", "OA-7.8", "OA-7.6")
            .created()
            .leaving()
            .time_passes(to="DELETE_UNCLEAR")
            .asks("FetchChat")
            .time_passes(to="DELETING")
            .pauses(0.5)
            .asks("DeleteChat")
            .time_passes(leaked(CHAT), to="LEAKED")
            .asks_nothing()
        )
    yield (
        Case("inference", "one DELETE that hangs leaves time for the next", "OA-7.8", "OA-7.6")
        .answered()
        .leaving()
        .time_passes(to="DELETE_UNCLEAR")
        .asks("FetchChat")
        .later(0.1)
        .reply(200, chat(), to="DELETING")
        .pauses(0.5)
        .asks("DeleteChat")
        .gone()
    )
    yield (
        Case("website", "an answer is waited for as long as is wanted, and then its chat is deleted", "OA-7.1")
        .streaming()
        .close(to="DRAINING")
        .closes_stream()
        .asks("FetchMessage")
        .later(1)
        .reply(200, assistant("in_progress"))
        .pauses(0.5)
        .asks("FetchMessage")
        .time_passes()
        .pauses(0.5)
        .asks_nothing()
        .time_passes(to="DELETING")
        .asks("DeleteChat")
        .gone()
    )
    yield (
        Case("inference", "the wait for an answer leaves a share for one DELETE", "OA-7.1", cleanup={"drain": 60})
        .streaming()
        .close(to="DRAINING")
        .closes_stream()
        .later(6)
        .asks("FetchMessage")
        .time_passes(to="DELETING")
        .asks("DeleteChat")
        .time_passes(leaked(CHAT), to="LEAKED")
    )
    yield (
        Case(
            "inference",
            "with a single attempt half of the time is left for it",
            "OA-7.1",
            cleanup={"drain": 60, "attempts": 1},
        )
        .streaming()
        .close(to="DRAINING")
        .closes_stream()
        .asks("FetchMessage")
        .time_passes(to="DELETING")
        .asks("DeleteChat")
    )
    yield (
        Case("website", "no wait for an answer at all", "OA-7.1", cleanup={"drain": 0})
        .streaming()
        .close(to="DELETING")
        .closes_stream()
        .asks("DeleteChat")
    )
    yield (
        Case("website", "a create that hangs is awaited for all of the time", "OA-4.3", "OA-7.8")
        .creating()
        .close(drain=False)
        .asks_nothing()
        .time_passes(leaked(None), to="LEAKED")
        .asks_nothing()
    )
    yield (
        Case("inference", "a prompt that hangs is awaited as long as an answer is", "OA-7.8")
        .prompting()
        .close()
        .asks_nothing()
        .time_passes(to="DELETING")
        .asks("DeleteChat")
        .gone()
    )
    yield (
        Case("website", "a request that hangs is awaited as long as an answer is", "OA-7.1", "OA-7.8")
        .requesting()
        .close()
        .asks_nothing()
        .time_passes(to="DELETING")
        .asks("DeleteChat")
        .gone()
    )
    yield (
        Case("inference", "the owner stops waiting for a request", "OA-7.1", "OA-7.8")
        .requesting()
        .close()
        .close(to="DELETING", drain=False)
        .asks("DeleteChat")
        .gone()
    )
    yield (
        Case("website", "a stream that cannot be closed", "OA-7.8")
        .streaming()
        .close(to="DELETING", drain=False)
        .closing_stream()
        .time_passes(leaked(CHAT), to="LEAKED")
        .asks_nothing()
    )
    yield (
        Case("inference", "credentials that are looked for until the time is over", "OA-6.4", "OA-7.8")
        .created()
        .leaving()
        .reply(401, None)
        .asks_for_credentials(refused=True)
        .time_passes(leaked(CHAT), to="LEAKED")
        .asks_nothing()
    )
    yield (
        Case("website", "a Retry-After that ends after the time is over", "OA-6.3", "OA-7.8")
        .created()
        .leaving()
        .reply(503, None, to="DELETE_UNCLEAR", headers={"retry-after": "20"})
        .pauses(20)
        .asks_nothing()
        .time_passes(leaked(CHAT), to="LEAKED")
        .asks_nothing()
    )
    yield (
        Case("inference", "no time at all: the chat is named at once", "OA-7.8", cleanup={"timeout": 0})
        .created()
        .close(leaked(CHAT), to="LEAKED")
        .asks_nothing()
    )
    yield (
        Case("website", "leaving again gives no more time", "OA-7.8")
        .created()
        .leaving()
        .time_passes(to="DELETE_UNCLEAR")
        .asks("FetchChat")
        .close()
        .time_passes(to="DELETING")
        .pauses(0.5)
        .asks("DeleteChat")
        .time_passes(leaked(CHAT), to="LEAKED")
        .asks_nothing()
    )


def _afterwards() -> Iterator[Case]:
    for api in BOTH:
        yield (
            Case(api, f"nothing follows once the chat is gone, {api}", "OA-7.7")
            .answered()
            .leaves()
            .close()
            .close(drain=False)
            .abandon()
            .asks_nothing()
            .refuses(happened(Prompt, text="More"))
            .asks_nothing()
        )
