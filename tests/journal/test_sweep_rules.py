"""How a sweep finds out which create made which chat: the rules alone, without a server."""

# The rules are private functions, because only a sweep needs them.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import time

import pytest

from oa_protocol.bindings.inference import InferenceServer
from oa_protocol.bindings.json import ChatSnapshot
from oa_protocol.bindings.replies import Reply
from oa_protocol.client.journal import Line
from oa_protocol.client.sweep import _is_in_any, _is_running, _makers, _shown, _skew, _time, _window
from tests.engine.stories import CHAT, assistant, message, prompter

pytestmark = pytest.mark.clause("OA-9.5")

BINDING = InferenceServer("http://oa.test")


def line(number: int, sent_at: float = 1000.0, settled_at: float | None = None) -> Line:
    return Line(number, "an owner", "inference", "http://oa.test", "an account", None, sent_at, settled_at)


@pytest.mark.parametrize(
    ("settled_at", "skew", "window"),
    [
        pytest.param(None, 0.0, (998.0, 1120.0), id="its process died"),
        pytest.param(1030.0, 0.0, (998.0, 1150.0), id="it was given up"),
        pytest.param(None, 500.0, (1498.0, 1620.0), id="the server's clock is ahead"),
    ],
)
def test_when_a_create_may_have_been_carried_out(
    settled_at: float | None, skew: float, window: tuple[float, float]
) -> None:
    assert _window(line(1, 1000.0, settled_at), skew) == window


def test_a_window_includes_both_ends() -> None:
    assert [at for at in range(8) if _is_in_any([(1, 2), (5, 6)], at)] == [1, 2, 5, 6]


@pytest.mark.parametrize(
    ("made", "windows", "makers"),
    [
        pytest.param({"a": 5}, [(0, 10)], {"a": 0}, id="one"),
        pytest.param({"a": 11}, [(0, 10)], {}, id="none at that time"),
        pytest.param({"a": 5, "b": 6}, [(0, 10)], {"a": 0}, id="more chats than creates"),
        pytest.param({"a": 6, "b": 5}, [(0, 10)], {"b": 0}, id="the oldest chat comes first"),
        pytest.param({"a": 5}, [(0, 20), (0, 10)], {"a": 1}, id="the window that ends first"),
        pytest.param({"a": 5, "b": 15}, [(0, 20), (0, 10)], {"a": 1, "b": 0}, id="as many as possible"),
    ],
)
def test_which_create_may_have_made_which_chat(
    made: dict[str, float], windows: list[tuple[float, float]], makers: dict[str, int]
) -> None:
    lines = {line(number): window for number, window in enumerate(windows)}
    assert {chat_id: maker.line for chat_id, maker in _makers(made, lines).items()} == makers


@pytest.mark.parametrize(
    ("created_at", "at"),
    [
        ("1970-01-01T00:01:00", 60.0),
        ("1970-01-01T00:00:00.500000", 0.5),
        (None, None),
        ("some day", None),
        ("0001-01-01T00:00:00", -62135596800.0),
    ],
)
def test_the_servers_times_are_utc(created_at: str | None, at: float | None) -> None:
    assert _time(created_at) == at


@pytest.mark.parametrize(
    ("date", "skew"),
    [("Thu, 01 Jan 1970 00:16:40 GMT", 400.0), ("Thu, 01 Jan 1970 00:00:00 GMT", -600.0), ("soon", 0.0), (None, 0.0)],
)
def test_how_far_the_servers_clock_is_ahead(monkeypatch: pytest.MonkeyPatch, date: str | None, skew: float) -> None:
    monkeypatch.setattr(time, "time", lambda: 600.0)
    assert _skew(Reply(BINDING, 200, b"", date)) == skew


@pytest.mark.parametrize(
    ("count", "shown"), [(1, "0"), (8, "0, 1, 2, 3, 4, 5, 6, 7"), (9, "0, 1, 2, 3, 4, 5, 6, 7, and 1 more")]
)
def test_eight_chats_are_named(count: int, shown: str) -> None:
    assert _shown([str(number) for number in range(count)]) == shown


@pytest.mark.clause("OA-7.1")
@pytest.mark.parametrize(
    ("state", "runs"), [("pending", True), ("in_progress", True), ("complete", False), ("cancelled", False)]
)
def test_which_answers_run(state: str, runs: bool) -> None:
    messages = [message(prompter()), message(assistant(state=state))]
    assert _is_running(ChatSnapshot(id=CHAT, messages=messages)) is runs
    assert not _is_running(None)
