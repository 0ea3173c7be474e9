"""Writes specs/phases.md and docs/phases.svg from the table: ``python -m tests.tools.phases``."""

from __future__ import annotations

from pathlib import Path

from oa_protocol.engine.phases import TERMINAL, TRANSITIONS, Phase
from oa_protocol.tape._phases_svg import phases_svg

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "specs" / "phases.md"
PICTURE = ROOT / "docs" / "phases.svg"

NEXT_INTENT = {
    Phase.START: "once there is a prompt: CreateChat, or LoadCredentials if there are none",
    Phase.COOKIES: "CreateChat once there is a prompt",
    Phase.OPENING: "FetchChat, or LoadCredentials if there are none",
    Phase.CHAT_CREATED: "SendPrompt; in an existing chat once there is a prompt",
    Phase.PROMPT_LOST: "FetchChat",
    Phase.PROMPTED: "RequestAssistant",
    Phase.REQUEST_LOST: "FetchChat",
    Phase.ASSISTANT_REQUESTED: "OpenStream",
    Phase.STREAMING: "FetchMessage if it looks stuck; the stream stays open",
    Phase.POLLING: "FetchMessage, after pauses",
    Phase.ANSWERED: "SendPrompt once there is a prompt",
    Phase.FAILED: "none until close",
    Phase.DRAINING: "FetchMessage, or FetchChat if the request was lost, after pauses, until nothing runs",
    Phase.DELETING: "DeleteChat",
    Phase.DELETE_UNCLEAR: "FetchChat, on a website then ListChats",
}

_TERMINAL = "– (terminal)"

HEAD = """# Phases

This page is written by `python -m tests.tools.phases` from the table in `oa_protocol/engine/phases.py`. A test compares
the two.

A phase names what is established on the server. What is in flight is the outstanding intent; the state of a
conversation is the pair of both. In any phase but STREAMING a stream that is still open is closed first (CloseStream),
and if credentials were rejected, others are asked for (LoadCredentials).

![The phases as boxes, with an arrow for each way from one to another](../docs/phases.svg)

An arrow from a dashed frame is possible in every phase inside it.
"""


def phases_md() -> str:
    """The whole page."""
    phases = [f"| {p.name} | {p.value} | {_TERMINAL if p in TERMINAL else NEXT_INTENT[p]} |" for p in Phase]
    moves = [
        f"| {trigger.name} | {trigger.value} | {', '.join(p.name for p in sources)} | {target.name} |"
        for trigger, sources, target in TRANSITIONS
    ]
    arrows = [
        f"    {source.name} --> {target.name}: {trigger.name}"
        for trigger, sources, target in TRANSITIONS
        for source in sources
    ]
    ends = [f"    {phase.name} --> [*]" for phase in Phase if phase in TERMINAL]
    diagram = ["```mermaid", "stateDiagram-v2", "    [*] --> START", *arrows, *ends, "```"]
    sections = [
        HEAD,
        "| phase | established | next intent |\n| --- | --- | --- |\n" + "\n".join(phases) + "\n",
        "## Transitions\n",
        "| trigger | what happened | from | to |\n| --- | --- | --- | --- |\n" + "\n".join(moves) + "\n",
        "## The same for Mermaid\n",
        "\n".join(diagram) + "\n",
    ]
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(phases_md(), encoding="utf-8")
    PICTURE.write_text(phases_svg(), encoding="utf-8")
