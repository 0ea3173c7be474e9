"""What the transcript of a tape says."""

from __future__ import annotations

import pytest

from oa_protocol.tape import Tape, transcript

from .taping import CASES, ONE_TURN, recorded

_REFUSED = {"raises": "LocalProtocolError"}


def happened(kind: str, **fields: object) -> dict[str, object]:
    return {"input": {"type": kind, **fields}}


def told(case: Tape) -> str:
    return "\n".join(transcript(case))


def test_one_turn_is_a_story_from_the_prompt_to_the_delete() -> None:
    chat, prompt, answer = (
        "06b02a53-f28e-708d-8000-044bde7b4953",
        "06b02a53-f2ad-71f3-8000-f5d0e5605120",
        "06b02a53-f2e8-7d17-8000-1b6ef2482de9",
    )
    assert list(transcript(ONE_TURN)) == [
        "website at http://oa.example.org, model (default)",
        '   2. owner    asks "Hello"',
        "   3. engine   CreateChat: POST /api/chat",
        f"   4. server   replies 200; Created: chat {chat}  [CHAT_CREATED]",
        "   5. engine   SendPrompt: POST /api/chat/prompter_message",
        f"   6. server   replies 200; Prompted: message {prompt}  [PROMPTED]",
        "   7. engine   RequestAssistant: POST /api/chat/assistant_message",
        f"   8. server   replies 200; Requested: message {answer}  [ASSISTANT_REQUESTED]",
        f"   9. engine   OpenStream: GET /api/chat/events?chat_id={chat}&message_id={answer}",
        "  10. server   opens the stream  [STREAMING]",
        '  11. server   streams 4 pieces; pending (1 times); "Hi there"; Answered  [ANSWERED]',
        "  15. engine   CloseStream",
        "  16. server   ends the stream",
        "  18. owner    leaves  [DELETING]",
        f"  19. engine   DeleteChat: DELETE /api/chat?chat_id={chat}",
        f"  20. server   replies 200; Deleted: chat {chat}  [DELETED]",
    ]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_conversation_has_a_transcript(case: Tape) -> None:
    lines = list(transcript(recorded(case)))
    assert len(lines) > 1
    assert all("\n" not in line for line in lines)


@pytest.mark.parametrize(
    ("step", "line"),
    [
        (happened("Close", drain=False), "owner    leaves at once"),
        (happened("Abandon"), "owner    gives up"),
        (happened("Interrupted"), "owner    interrupts"),
        (happened("CredentialsFound", credentials=None), "owner    has no credentials"),
        (happened("CredentialsFound", credentials={"token": "secret-1"}), "owner    gives credentials"),
        ({"intent": {"kind": "LoadCredentials", "refused": True}}, "engine   LoadCredentials"),
        (
            happened("ExchangeFailed", failure={"type": "NotSent", "reason": "no route"}),
            "network  fails, not sent: no route",
        ),
        (happened("ExchangeFailed", failure={"type": "MaybeSent"}), "network  fails, maybe sent: MaybeSent"),
        (happened("Prompt", text="a\nb\x1b[2J"), r'owner    asks "a\nb\u001b[2J"'),
        (happened("Prompt", text="a") | _REFUSED, 'owner    asks "a"; refused: LocalProtocolError'),
        (happened("StreamData", data="x") | _REFUSED, "server   streams 1 pieces; refused: LocalProtocolError"),
        (
            {"intent": {"kind": "FetchChat", "method": "GET", "url": "http://oa.example.org/a"}},
            "engine   FetchChat: GET /a",
        ),
        (
            {
                **happened("ReplyReceived", status=503),
                "events": [{"type": "Failed", "error": {"type": "ApiError", "status": 503, "message": "busy"}}],
                "reason": "busy: HTTP 503",
            },
            "server   replies 503; Failed: ApiError; busy: HTTP 503",
        ),
        (
            happened("StreamData", data="x")
            | {"events": [{"type": "Failed", "error": {"type": "AnswerFailed"}}], "reason": "broken"},
            "server   streams 1 pieces; Failed: AnswerFailed; broken",
        ),
        (
            happened("Abandon") | {"events": [{"type": "Leaked", "leaked": [{"chat_id": None}, {"chat_id": "c"}]}]},
            "owner    gives up; Leaked: a chat without an id, c",
        ),
        (
            happened("StreamData", data="x")
            | {"events": [{"type": "Token", "text": "a"}, {"type": "Answered", "text": "b"}]},
            'server   streams 1 pieces; "a"; Answered: "b"',
        ),
        (
            {
                **happened("StreamData", data="x"),
                "events": [
                    {"type": "PluginStep", "current_plugin_thought": "why", "current_plugin_action_taken": None}
                ],
            },
            "server   streams 1 pieces; PluginStep: current_plugin_thought why",
        ),
        (happened("Close") | {"events": [{"type": "NeverCreated"}]}, "owner    leaves; NeverCreated"),
    ],
)
def test_a_step(step: dict[str, object], line: str) -> None:
    assert told(Tape(ONE_TURN.config, ({**step, "phase": "START"},))).splitlines()[1] == f"   1. {line}"


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("no reply to a request in time, website", ["the time is over  [REQUEST_LOST]", "the time is over"]),
        ("the answer's time ends with a stream", ["the time is over; Failed: AnswerFailed; no answer came"]),
        ("a pause lasts until its end, and not until the deadline is looked at", []),
    ],
)
def test_time_is_shown_if_it_had_an_effect(name: str, lines: list[str]) -> None:
    found = [line.split("clock    ")[1] for line in transcript(recorded(CASES[name])) if "clock    " in line]
    assert len(found) == len(lines)
    assert all(each.startswith(line) for each, line in zip(found, lines, strict=True))
