"""The exit codes of ``oa-protocol``, in the table that ``--help`` prints. Importing this costs almost nothing."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes. If more than one applies, the first one is used."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:  # noqa: PYI034  # an enum's members are of the enum itself
        """Make a member from its number and its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    USAGE = 2, "usage error: an option, the prompt or stdin can't be used"
    INTERRUPTED = 130, "interrupted by Ctrl-C (by another signal: 128 plus its number)"
    CREDENTIALS = 3, "credentials are missing, or the server rejected them"
    BUSY = 4, "the server is busy, or limits requests (HTTP 429 or 503)"
    ANSWER_FAILED = 5, "the answer failed"
    LEFT_BEHIND = 6, "a chat is, or may be, left on the server; stderr names it"
    UPGRADE = 7, "the server speaks another version of the worker protocol"
    STDOUT_CLOSED = 141, "stdout was closed, for example by `head`"
    OTHER = 1, "anything else"
    DONE = 0, "success"


def table() -> str:
    """Return the table as text, one code per line."""
    return "\n".join(f"  {code:3}  {code.meaning}" for code in ExitCode)
