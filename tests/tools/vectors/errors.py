"""Section 8: each row of its table at its step, with no further try; and replies without what they must carry."""

from __future__ import annotations

from collections.abc import Iterator

from oa_protocol.engine.errors import ApiError, AuthenticationError, HTTPStatusError
from oa_protocol.testing.error_table import ROWS, Row

from .notation import (
    BOTH,
    CHAT,
    DELETED,
    NEVER_CREATED,
    Bytes,
    Case,
    Json,
    answered,
    assistant,
    chat,
    failed,
    leaked,
    prompter,
    token,
    words,
)

_LIST_ITEM = {"loc": ["body", "messages", 0, "content"], "msg": "field required", "type": "value_error.missing"}
_WORDLESS: dict[str, Bytes | None] = {
    "nothing": None,
    "a page": "<html>Bad request</html>",
    "JSON without words": "{}",
    "JSON with other words": '{"error": "No"}',
    "a detail that is a number": '{"detail": 5}',
    "an empty detail": '{"detail": ""}',
    "a list": "[]",
    "no UTF-8": {"base64": "/////w=="},
    "JSON that nests too deep": [{"repeat": ['{"detail":', 100_000]}],
}
_NO_ID: dict[str, Bytes | None] = {
    "nothing": None,
    "a page": "<html>It works!</html>",
    "null": "null",
    "an object without an id": "{}",
    "an id that is a number": '{"id": 7}',
    "no UTF-8": {"base64": "/////w=="},
}
_NO_MESSAGE: dict[str, Bytes | None] = {
    "nothing": None,
    "a page": "<html>It works!</html>",
    "an object": "{}",
    "a complete answer without content": assistant("complete"),
}
_NO_CHAT: dict[str, Bytes | None] = {
    "a page": "<html>It works!</html>",
    "no messages": {"id": CHAT},
    "a message without an id": {"id": CHAT, "messages": [{"role": "prompter", "state": "manual"}]},
}


def cases() -> Iterator[Case]:
    for row in ROWS:
        if row.step != "models":
            yield _row(row)
    yield from _words()
    yield from _nothing_carried()


def _row(row: Row) -> Case:
    said = f" {row.words[0]}" if row.case == "bad parent" else ""
    name = f"{row.step}, {row.case}{said}, {row.api}"
    case = Case(row.api, name, "OA-8.1", "OA-8.3", "OA-6.11", retries=0)
    match row.step:
        case "create":
            return _create(case.creating(), row)
        case "prompt":
            return _write(case.prompting(), row, "PROMPT_LOST", chat())
        case "request":
            return _write(case.requesting(), row, "REQUEST_LOST", chat(prompter()))
        case "events":
            return _events(case.opening(), row)
        case "message":
            return _read(case.polling(), row)
        case "chat":
            return _chat(case.created().leaving().lost(to="DELETE_UNCLEAR").asks("FetchChat"), row)
        case _:
            return _delete(case.created().leaving(), row)


def _create(case: Case, row: Row) -> Case:
    if row.error is AuthenticationError:
        return _rejected(case, row).finds(None, _error(row), NEVER_CREATED, to="NEVER_CREATED").asks_nothing()
    if row.status >= 500:
        return _reply(case, row, _error(row), leaked(None), to="LEAKED").asks_nothing()
    return _reply(case, row, _error(row), NEVER_CREATED, to="NEVER_CREATED").asks_nothing()


def _write(case: Case, row: Row, lost: str, without: Json) -> Case:
    if row.error is AuthenticationError:
        _rejected(case, row).finds(None, _error(row), to="FAILED")
    elif row.status >= 500 and row.status != 503:
        _reply(case, row, to=lost).asks("FetchChat").reply(200, without, _error(row), to="FAILED")
    else:
        _reply(case, row, _error(row), to="FAILED")
    return case.asks_nothing().leaves()


def _events(case: Case, row: Row) -> Case:
    if row.error is AuthenticationError:
        return _rejected(case, row).finds(None, _error(row), to="FAILED").asks_nothing()
    polling = _reply(case, row, to="POLLING").asks("FetchMessage")
    if row.error is not None:
        return _read(polling, row)
    return polling.reply(200, assistant("complete", "Hi"), token("Hi"), answered("Hi"), to="ANSWERED").asks_nothing()


def _read(case: Case, row: Row) -> Case:
    if row.error is AuthenticationError:
        return _rejected(case, row).finds(None, _error(row), to="FAILED").asks_nothing()
    return _reply(case, row, _error(row), to="FAILED").asks_nothing()


def _chat(case: Case, row: Row) -> Case:
    if row.api == "website":
        return _reply(case, row).asks("ListChats")
    return _reply(case, row, DELETED, to="DELETED").asks_nothing()


def _delete(case: Case, row: Row) -> Case:
    if row.status in (401, 403):
        return _rejected(case, row).finds(None, leaked(CHAT), to="LEAKED").asks_nothing()
    if row.api == "inference":
        return _reply(case, row, DELETED, to="DELETED").asks_nothing()
    return _reply(case, row, to="DELETE_UNCLEAR").asks("FetchChat")


def _rejected(case: Case, row: Row) -> Case:
    return _reply(case, row).asks_for_credentials(refused=True)


def _reply(case: Case, row: Row, *events: Json, to: str | None = None) -> Case:
    return case.reply(row.status, row.body.decode() or None, *events, to=to)


def _error(row: Row) -> Json:
    """The Failed event that the row promises."""
    if row.error is ApiError:
        return failed("ApiError", status=row.status, message=row.words[0])
    assert row.error in (HTTPStatusError, AuthenticationError)
    return failed(row.error.__name__, status=row.status)


def _words() -> Iterator[Case]:
    """OA-8.1."""
    told: dict[str, tuple[Json, str]] = {
        "a detail": ({"detail": "No"}, "No"),
        "a message": ({"message": "No"}, "No"),
        "a list": ({"detail": [_LIST_ITEM]}, "body.messages.0.content: field required"),
        "a list of two": (
            {"message": [_LIST_ITEM, {"loc": ["body"], "msg": "No", "type": "x"}]},
            "body.messages.0.content: field required; body: No",
        ),
        "more than the words": ({"detail": "No", "error_code": 3}, "No"),
    }
    for api in BOTH:
        for name, (worded, said) in told.items():
            yield (
                Case(api, f"an error body with {name}, {api}", "OA-8.1")
                .prompting()
                .reply(400, worded, failed("ApiError", status=400, message=said), to="FAILED")
            )
    for name, body in _WORDLESS.items():
        yield (
            Case("inference", f"an error body with {name} has no words", "OA-8.1", "OA-6.11")
            .prompting()
            .reply(400, body, failed("HTTPStatusError", status=400), to="FAILED")
            .asks_nothing()
        )
    yield (
        Case("website", "a rejection with words is one of the credentials", "OA-8.1")
        .polling()
        .reply(401, words("website", "No"))
        .asks_for_credentials(refused=True)
        .finds(None, failed("AuthenticationError", status=401), to="FAILED")
    )


def _nothing_carried() -> Iterator[Case]:
    """OA-8.2."""
    broken = failed("RemoteProtocolError")
    for name, body in _NO_ID.items():
        yield (
            Case("website", f"200 to a prompt with {name}", "OA-8.2", "OA-6.11")
            .prompting()
            .reply(200, body, broken, to="FAILED")
            .asks_nothing()
            .leaves()
        )
        yield (
            Case("inference", f"200 to a request with {name}", "OA-8.2", "OA-6.11", "OA-7.1")
            .requesting()
            .reply(200, body, broken, to="FAILED")
            .asks_nothing()
            .close(to="DRAINING")
            .asks("FetchChat")
        )
    for name, body in _NO_MESSAGE.items():
        yield (
            Case("inference", f"200 to reading a message with {name}", "OA-8.2", "OA-6.11")
            .polling()
            .reply(200, body, broken, to="FAILED")
            .asks_nothing()
        )
    for name, body in _NO_CHAT.items():
        yield (
            Case("website", f"200 to reading a chat with {name}", "OA-8.2", "OA-6.11")
            .prompting()
            .lost(to="PROMPT_LOST")
            .asks("FetchChat")
            .reply(200, body, broken, to="FAILED")
            .asks_nothing()
        )
    for api in BOTH:
        told = failed("ApiError", status=200, message="No")
        yield (
            Case(api, f"200 with an error's words, to a prompt, {api}", "OA-8.2")
            .prompting()
            .reply(200, words(api, "No"), told, to="FAILED")
            .asks_nothing()
            .leaves()
        )
        yield (
            Case(api, f"200 with an error's words, to reading a message, {api}", "OA-8.2")
            .polling()
            .reply(200, words(api, "No"), told, to="FAILED")
            .asks_nothing()
        )
        yield (
            Case(
                api,
                f"200 with an error's words, to create: a chat may have been made, {api}",
                "OA-8.2",
                "OA-6.8",
                retries=0,
            )
            .creating()
            .reply(200, words(api, "No"), told, leaked(None), to="LEAKED")
            .asks_nothing()
        )
