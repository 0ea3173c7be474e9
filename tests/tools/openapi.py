"""Writes specs/openapi.yaml: ``python -m tests.tools.openapi``. The schemas are those of the wire structs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from oa_protocol import __version__
from oa_protocol.bindings.json import (
    LONGEST_TITLE,
    ChatList,
    ChatSnapshot,
    ChatUpdate,
    Created,
    ErrorBody,
    ModelConfig,
    NewAnswer,
    NewPrompt,
    StreamEvent,
)
from oa_protocol.engine.events import Message

PATH = Path(__file__).parents[2] / "specs" / "openapi.yaml"

Json = dict[str, Any]

_HEAD = "# Generated: python -m tests.tools.openapi\n"
_DESCRIPTION = """\
Both APIs of Open Assistant, as far as a conversation needs them. protocol.md says in which order, and what the replies
mean. The website's paths begin with /api and want a cookie; the others are the inference server's and want a token.
The schemas name the fields that this client reads and writes; servers send more, and accept unknown ones silently.
"""

_ID = {"type": "string", "format": "uuid"}
_IDS = ("id", "chat_id", "parent_id", "active_thread_tail_message_id")
_NO_CONTENT: Json = {"description": "Done; no body."}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _body(schema: Json) -> Json:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _query(name: str, schema: Json | None = None, *, required: bool = True) -> Json:
    return {"name": name, "in": "query", "required": required, "schema": schema or _ID}


def _path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": _ID}


def _words(description: str) -> Json:
    return _json(description, _ref("ErrorBody"))


def _often_words(description: str) -> Json:
    content = {"application/json": {"schema": _ref("ErrorBody")}, "text/plain": {}}
    return {"description": f"{description} The body may also be plain text, or empty.", "content": content}


_CHAT, _CHATS, _CREATED = _json("The chat.", _ref("ChatSnapshot")), _json("A page.", _ref("ChatList")), _ref("Created")
_MESSAGE = _json("The message.", _ref("Message"))
_MODELS = _json("The models.", {"type": "array", "items": _ref("ModelConfig")})
_STREAM: Json = {
    "description": "Server-sent events, each with a StreamEvent as its data, up to `message` or `error`. Pings come"
    " in between. A website sends no content-type, and answers with an empty body once the message has finished.",
    "content": {"text/event-stream": {"itemSchema": {
        "type": "object",
        "properties": {
            "event": {"type": "string"},
            "data": {
                "type": "string", "contentMediaType": "application/json", "contentSchema": _ref("StreamEvent")
            },
        },
    }}},
}  # fmt: skip
_ANY_ERROR = {"4XX": {"$ref": "#/components/responses/Refused"}, "5XX": {"$ref": "#/components/responses/Broken"}}
_BUSY = {
    "429": _words("Too many requests. Stock servers say 500 instead."),
    "503": _words("The queue is full, and a pending message stays behind."),
}
_CURSOR = {"type": "string", "format": "byte", "description": "A cursor from a page, and never both of them."}
_PAGING = [
    _query("before", _CURSOR, required=False),
    _query("after", _CURSOR, required=False),
    _query("include_hidden", {"type": "boolean"}, required=False),
]


def _operation(
    operation_id: str,
    summary: str,
    replies: Json,
    *,
    parameters: list[Json] | None = None,
    body: Json | None = None,
    security: str,
) -> Json:
    made: Json = {"operationId": operation_id, "summary": summary, "tags": [operation_id.partition("_")[0]]}
    if parameters:
        made["parameters"] = parameters
    if body is not None:
        made["requestBody"] = _body(body)
    made["responses"] = {**replies, **_ANY_ERROR}
    cookies: list[Json] = [{"cookie": []}, {"secureCookie": []}] if security == "website" else []
    made["security"] = [*cookies, {"token": []}]  # which the website takes as well
    return made


def _with_chat_id(name: str) -> Json:
    """The schema ``name`` with the chat's id, which only the website wants, and wants always."""
    return {"allOf": [_ref(name), {"type": "object", "required": ["chat_id"]}]}


def _website() -> Json:
    def operation(name: str, summary: str, replies: Json, **more: Any) -> Json:
        return _operation(f"website_{name}", summary, replies, security="website", **more)

    both = [_query("chat_id"), _query("message_id")]
    read_or_list: Json = {"description": "With `chat_id` that chat, else a page of 20 chats, newest first."}
    read_or_list["content"] = {"application/json": {"schema": {"anyOf": [_ref("ChatSnapshot"), _ref("ChatList")]}}}
    chat = [_query("chat_id", required=False), *_PAGING]
    stream = {"200": _STREAM}
    return {
        "/api/chat": {
            "post": operation("create_chat", "Make a chat", {"200": _json("Made.", _CREATED)}, body={"type": "object"}),
            "get": operation("fetch_chat_or_list_chats", "Read a chat, or list chats", {
                "200": read_or_list,
                "404": {"description": "No such chat, or chat is off, or the website's own key is rejected; no body."},
            }, parameters=chat),
            "put": operation("update_chat", "Change a chat", {"200": _NO_CONTENT}, body=_with_chat_id("ChatUpdate")),
            "delete": operation("delete_chat", "Delete a chat", {
                "200": _NO_CONTENT,
                "500": {"description": "Ambiguous: also said of a chat that is gone.", "content": {"text/plain": {}}},
            }, parameters=[_query("chat_id")]),
        },
        "/api/chat/prompter_message": {
            "post": operation(
                "send_prompt", "Add a prompt", {"200": _json("Added.", _CREATED)}, body=_with_chat_id("NewPrompt")
            ),
        },
        "/api/chat/assistant_message": {
            "post": operation(
                "request_assistant", "Ask for an answer", {"200": _json("Queued.", _CREATED), **_BUSY},
                body=_with_chat_id("NewAnswer"),
            ),
        },
        "/api/chat/events": {
            "get": operation("open_stream", "Stream an answer", stream, parameters=both),
        },
        "/api/chat/message": {
            "get": operation("fetch_message", "Read a message", {"200": _MESSAGE}, parameters=both),
        },
        "/api/chat/models": {
            "get": operation("list_models", "List the models", {"200": _MODELS}),
        },
    }  # fmt: skip


def _inference() -> Json:
    def operation(name: str, summary: str, replies: Json, **more: Any) -> Json:
        return _operation(f"inference_{name}", summary, replies, security="inference", **more)

    chat, both = [_path("chat_id")], [_path("chat_id"), _path("message_id")]
    limit = _query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 10}, required=False)
    not_found = {"404": _words("`Chat not found`.")}
    finished: Json = {"description": "The message has finished: read it."}
    return {
        "/chats": {
            "post": operation("create_chat", "Make a chat", {"200": _json("Made.", _CREATED)}, body={"type": "object"}),
            "get": operation("list_chats", "List chats", {"200": _CHATS}, parameters=[limit, *_PAGING]),
        },
        "/chats/{chat_id}": {
            "get": operation("fetch_chat", "Read a chat", {"200": _CHAT, **not_found}, parameters=chat),
            "put": operation(
                "update_chat", "Change a chat", {"200": _NO_CONTENT}, parameters=chat, body=_ref("ChatUpdate")
            ),
            "delete": operation("delete_chat", "Delete a chat", {"200": _NO_CONTENT, **not_found}, parameters=chat),
        },
        "/chats/{chat_id}/prompter_message": {
            "post": operation(
                "send_prompt", "Add a prompt", {"200": _json("Added.", _CREATED)},
                parameters=chat, body=_ref("NewPrompt"),
            ),
        },
        "/chats/{chat_id}/assistant_message": {
            "post": operation(
                "request_assistant", "Ask for an answer", {"200": _json("Queued.", _CREATED), **_BUSY},
                parameters=chat, body=_ref("NewAnswer"),
            ),
        },
        "/chats/{chat_id}/messages/{message_id}": {
            "get": operation("fetch_message", "Read a message", {"200": _MESSAGE}, parameters=both),
        },
        "/chats/{chat_id}/messages/{message_id}/events": {
            "get": operation("open_stream", "Stream an answer", {"200": _STREAM, "204": finished}, parameters=both),
        },
        "/configs/model_configs": {
            # This alone needs no credentials.
            "get": {
                **operation("list_models", "List the models", {"200": _MODELS}), "security": [{}, {"token": []}]
            },
        },
    }  # fmt: skip


def _schemas() -> Json:
    (event, *_), found = msgspec.json.schema_components(
        [
            StreamEvent,
            NewPrompt,
            NewAnswer,
            ChatUpdate,
            Created,
            Message,
            ChatSnapshot,
            ChatList,
            ModelConfig,
            ErrorBody,
        ],
        ref_template="#/components/schemas/{name}",
    )
    for schema in found.values():
        # What a docstring goes on to say is about Python.
        schema["description"] = " ".join(schema["description"].partition("\n\n")[0].split())
        for name, field in schema.get("properties", {}).items():
            if name in _IDS:
                field.get("anyOf", [field])[0]["format"] = "uuid"
    found["ChatUpdate"]["properties"]["title"]["maxLength"] = LONGEST_TITLE
    return {"StreamEvent": event, **{name: found[name] for name in sorted(found)}}


def document() -> Json:
    """The whole description."""
    return {
        "openapi": "3.2.0",
        "info": {"title": "Open Assistant conversations", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": "http://127.0.0.1:3000", "description": "a website, or an inference server"}],
        "tags": [{"name": "website"}, {"name": "inference"}],
        "paths": {**_website(), **_inference()},
        "components": {
            "schemas": _schemas(),
            "responses": {
                "Refused": _often_words("Refused; with 401 and 403 it is the credentials that are."),
                "Broken": _often_words("It may or may not have been carried out."),
            },
            "securitySchemes": {
                "cookie": {"type": "apiKey", "in": "cookie", "name": "next-auth.session-token"},
                "secureCookie": {"type": "apiKey", "in": "cookie", "name": "__Secure-next-auth.session-token"},
                "token": {"type": "http", "scheme": "bearer"},
            },
        },
    }


class _Plain(yaml.SafeDumper):
    """Writes everything out: an anchor in it would only be there because Python shares objects."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def text() -> str:
    """The file's content."""
    dump: Callable[..., str] = vars(yaml)["dump"]  # not all of its stub is typed
    dumped = dump(document(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)
    return _HEAD + dumped


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
