"""Lets schemathesis compare the embedded server with specs/openapi.yaml: ``python -m tests.fuzz.openapi``.

For each operation, it sends requests that follow the schema, half of them about a chat that exists, and requests that
don't. What it finds must be in specs/openapi-findings.md, which says why it is right. Otherwise, this fails.
"""

# schemathesis is installed only where this runs.
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatch
from typing import Any, NamedTuple

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup

from oa_protocol.server import Echo, Server
from tests.tools.openapi import PATH

# schemathesis filters what it draws, and requests take their time.
_UNHEALTHY = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)

KNOWN = PATH.with_name("openapi-findings.md")
_ROW = re.compile(r"^\| (\w+) \| (\d+) \| (.+?) \| .+ \|$", re.MULTILINE)


class Finding(NamedTuple):
    """The name of a schemathesis failure, the status, and the operation. In a known one, * stands for anything."""

    name: str
    status: str
    operation: str


def known() -> list[Finding]:
    """The findings in the list."""
    rows: list[tuple[str, str, str]] = _ROW.findall(KNOWN.read_text(encoding="utf-8"))
    return [Finding(name, status, each) for name, status, named in rows for each in re.findall(r"`([\w*]+)`", named)]


class Run:
    """All requests to one server."""

    def __init__(self, server: Server, examples: int) -> None:
        self.found: dict[Finding, str] = {}
        self.requests = 0
        self._server = server
        self._examples = examples
        self._own = httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {server.token}"})
        cookies = "; ".join(f"{name}={value}" for name, value in server.cookies.items())
        self._headers = {
            "website": {"cookie": cookies},
            "inference": {"authorization": f"Bearer {server.token}"},
        }

    def test(self, operation: Any) -> None:
        """Send requests for an operation, and note what schemathesis finds wrong with the replies."""
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            about_real_chats = st.booleans() if mode is GenerationMode.POSITIVE else st.just(False)

            @settings(
                max_examples=self._examples,
                database=None,
                deadline=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=_UNHEALTHY,
            )
            @given(operation.as_strategy(generation_mode=mode), about_real_chats)
            def check(case: Any, is_real: bool) -> None:
                if is_real:
                    self._make_real(case)
                self._send(case)

            with suppress(Unsatisfiable):  # for example, nothing can be wrong with a request that has no parameters
                check()

    def _send(self, case: Any) -> None:
        label: str = case.operation.definition.raw["operationId"]
        headers = self._headers[label.partition("_")[0]]
        self.requests += 1
        response = case.call(base_url=self._server.url, headers=headers, timeout=30)
        try:
            case.validate_response(response, headers=headers, transport_kwargs={"base_url": self._server.url})
        except FailureGroup as group:
            for failure in group.exceptions:
                finding = Finding(type(failure).__name__, str(response.status_code), label)
                self.found.setdefault(finding, f"{failure}\n{case.as_curl_command()}")

    def _make_real(self, case: Any) -> None:
        """Let a request be about a chat that exists, and a message that fits."""
        chat_id = self._create("", {})
        asks = case.operation.path.endswith("/prompter_message")
        prompt_id = None if asks else self._create(f"/{chat_id}/prompter_message", {"parent_id": None, "content": "Hi"})
        body: dict[str, Any] = {"parent_id": prompt_id, "model_config_name": "_lorem", "sampling_parameters": {}}
        ids = {"chat_id": chat_id, "parent_id": prompt_id, "model_config_name": "_lorem"}
        if "message_id" in {*(case.path_parameters or ()), *(case.query or ())}:
            ids["message_id"] = self._create(f"/{chat_id}/assistant_message", body)
        for part in (case.path_parameters, case.query, case.body):
            if isinstance(part, dict):
                part.update({name: value for name, value in ids.items() if name in part})

    def _create(self, path: str, body: dict[str, Any]) -> str:
        created: str = self._own.post(f"/chats{path}", json=body).raise_for_status().json()["id"]
        return created


def unknown(found: dict[Finding, str], listed: list[Finding]) -> Iterator[str]:
    """Yield the findings that aren't in the list."""
    for finding, story in sorted(found.items()):
        if not any(all(map(fnmatch, finding, each)) for each in listed):
            yield f"{finding.name} | {finding.status} | {finding.operation}\n{story}\n"


class Errors(logging.Handler):
    """Keeps what the server logs about itself."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100, help="how many requests of each kind")
    options = parser.parse_args()
    errors = Errors()
    for name in ("oa_protocol.server", "asyncio"):
        logging.getLogger(name).addHandler(errors)
    schema: Any = schemathesis.openapi.from_path(PATH)  # its types differ with the version
    with Server(Echo(), reader_grace=0.02, pending_interval=0.05) as server:
        run = Run(server, options.examples)
        for operation in schema.get_all_operations():
            run.test(operation.ok())
    listed = known()
    problems = [*unknown(run.found, listed), *(f"the server logs an error:\n{text}\n" for text in errors.texts)]
    for each in listed:
        if not any(all(map(fnmatch, finding, each)) for finding in run.found):
            print(f"not found: {' | '.join(each)}")
    print(*problems, sep="\n")
    print(f"{run.requests} requests, {len(run.found)} findings, {len(problems)} of them aren't in {KNOWN.name}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
