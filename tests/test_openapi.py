"""specs/openapi.yaml says what the structs, the specification, the bindings, and real servers say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
import yaml

from oa_protocol.bindings import json as schemas
from oa_protocol.bindings.base import AnswerOptions, Binding, Credentials
from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.website import Website
from oa_protocol.engine.intents import HttpRequest
from tests.request_table import REQUESTS
from tests.tools.openapi import PATH, text

from .captures import Recorded, every

DOCUMENT: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
OPERATIONS: dict[tuple[str, str], dict[str, Any]] = {
    (method.upper(), path): operation for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
}
PROTOCOL = PATH.with_name("protocol.md").read_text(encoding="utf-8")
CHAT, MESSAGE = "06b02a53-f28e-708d-8000-044bde7b4953", "06b02a53-f2ad-71f3-8000-f5d0e5605120"
SCHEME = {"website": "cookie", "inference": "token"}


def operation_of(method: str, target: str) -> dict[str, Any]:
    """The operation that a request line is for; its parameters are checked on the way."""
    parts = urlsplit(target)
    for (verb, path), operation in OPERATIONS.items():
        pattern = re.sub(r"\{\w+\}", "[^/]+", path)
        if verb == method and re.fullmatch(pattern, parts.path):
            parameters = operation.get("parameters", [])
            given = {name for name, _ in parse_qsl(parts.query)}
            assert given <= {one["name"] for one in parameters if one["in"] == "query"}
            assert given >= {one["name"] for one in parameters if one["in"] == "query" and one["required"]}
            assert set(re.findall(r"\{(\w+)\}", path)) == {one["name"] for one in parameters if one["in"] == "path"}
            return operation
    raise AssertionError(f"not in openapi.yaml: {method} {target}")


def refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():  # pyright: ignore[reportUnknownVariableType]  # any YAML
            if isinstance(value, str) and value.startswith("#/"):  # in a $ref, or in a discriminator's mapping
                yield value
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:  # pyright: ignore[reportUnknownVariableType]  # any YAML
            yield from refs(value)


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """What a reference stands for; anything else is itself."""
    found = node
    if "$ref" in node:
        found = DOCUMENT
        for key in node["$ref"].removeprefix("#/").split("/"):
            found = found[key]
    return found


def test_the_file_is_what_the_generator_writes() -> None:
    assert PATH.read_text(encoding="utf-8") == text(), "run: python -m tests.tools.openapi"


def test_every_reference_resolves_and_every_component_is_used() -> None:
    used = set(refs(DOCUMENT))
    for ref in used:
        assert resolved({"$ref": ref})
    components = DOCUMENT["components"]
    assert used == {f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in components[kind]}


def test_its_structure() -> None:
    assert DOCUMENT["openapi"] == "3.2.0"
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)
    for (method, path), operation in OPERATIONS.items():
        assert path.startswith("/api/") is (operation["tags"] == ["website"])
        assert ("requestBody" in operation) is (method in ("POST", "PUT"))
        assert {"4XX", "5XX"} <= set(operation["responses"])
        for status, reply in operation["responses"].items():
            assert re.fullmatch(r"[2-5](\d\d|XX)", status)
            assert resolved(reply)["description"]
        for needed in operation["security"]:
            assert set(needed) <= set(DOCUMENT["components"]["securitySchemes"])


def test_it_has_the_requests_of_the_specifications_table_and_no_others() -> None:
    section = PROTOCOL.partition("**OA-1.1**")[2].partition("**OA-1.2**")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| ") and "---" not in line][1:]
    named = [re.findall(r"`(GET|POST|PUT|DELETE) (/[^`]*)`", cell)[0] for row in rows for cell in row[2:4]]
    assert len(named) == sum(map(len, REQUESTS.values()))
    found = {id(operation_of(method, target.replace("=", "=x"))) for method, target in named}
    assert found == {id(operation) for operation in OPERATIONS.values()}


def requests(binding: Binding, who: Credentials) -> list[HttpRequest]:
    options = AnswerOptions(system_prompt="a", user_profile="b", user_response_instructions="c")
    return [
        binding.create_chat(who), binding.send_prompt(who, CHAT, None, "Hello"),
        binding.send_prompt(who, CHAT, MESSAGE, ""), binding.request_assistant(who, CHAT, MESSAGE, AnswerOptions()),
        binding.request_assistant(who, CHAT, MESSAGE, options), binding.open_stream(who, CHAT, MESSAGE),
        binding.fetch_message(who, CHAT, MESSAGE), binding.fetch_chat(who, CHAT), binding.list_chats(who),
        binding.list_models(who), binding.delete_chat(who, CHAT),
        binding.update_chat(who, CHAT, schemas.ChatUpdate(title="Café", hidden=False)),
    ]  # fmt: skip


def properties(schema: dict[str, Any]) -> tuple[set[str], set[str]]:
    """The names that a body's schema knows, and those it wants."""
    parts = [resolved(part) for part in schema.get("allOf", [schema])]
    known = {name for part in parts for name in part.get("properties", {})}
    return known, {name for part in parts for name in part.get("required", [])}


@pytest.mark.clause("OA-1.2")
@pytest.mark.parametrize(
    ("binding", "who"),
    [
        (Website("http://h/base"), Credentials(cookies={"next-auth.session-token": "x"})),
        (InferenceServer("http://h/base"), Credentials(token="x")),
    ],
    ids=SCHEME,
)
def test_every_request_of_the_bindings_is_in_it(binding: Binding, who: Credentials) -> None:
    for request in requests(binding, who):
        operation = operation_of(request.method, request.url.removeprefix("http://h/base"))
        assert operation["tags"] == [binding.api]
        assert {SCHEME[binding.api]: []} in operation["security"]
        assert bool(request.body) is ("requestBody" in operation)
        if request.body:
            known, wanted = properties(operation["requestBody"]["content"]["application/json"]["schema"])
            assert wanted <= set(json.loads(request.body)) <= known


STRUCTS: dict[str, Any] = {
    name: getattr(schemas, name)
    for name in ("ChatSnapshot", "ChatList", "Created", "ErrorBody", "Message", "ModelConfig")
}


def python_type(schema: dict[str, Any]) -> Any:
    """The type from which a reply's schema was generated."""
    if schema.get("type") == "array":
        return list.__class_getitem__(python_type(schema["items"]))
    return STRUCTS[schema["$ref"].rpartition("/")[2]]


REPLIES = [one for one in every() if one.status is not None and not 300 <= one.status < 400 and one.end == "complete"]


@pytest.mark.parametrize("recorded", REPLIES, ids=str)
def test_what_real_servers_replied(recorded: Recorded) -> None:
    method = "GET" if recorded.step == "stream" else recorded.method  # the website takes a POST as well
    replies = operation_of(method, recorded.target)["responses"]
    status = str(recorded.status)
    reply = resolved(replies.get(status) or replies[f"{status[0]}XX"])
    if not recorded.body or recorded.step == "stream":
        return
    if not recorded.body.startswith((b"{", b"[")):
        assert "text/plain" in reply["content"]
        return
    schema = reply["content"]["application/json"]["schema"]
    assert any(fits(recorded.body, choice) for choice in schema.get("anyOf", [schema]))


def fits(body: bytes, schema: dict[str, Any]) -> bool:
    try:
        msgspec.json.decode(body, type=python_type(schema))
    except msgspec.DecodeError:
        return False
    return True
