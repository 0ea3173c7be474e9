"""What ``oa-protocol`` exits with: the one table, which ``--help`` prints. Importing this is as good as free."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The codes, in the order in which they are chosen: if more than one applies, it is the first."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:  # noqa: PYI034  # an enum's members are of the enum itself
        """Make a member of its number and what the number means."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    USAGE = 2, "usage: an option, the prompt or stdin can't be used"
    INTERRUPTED = 130, "interrupted (by a signal other than Ctrl-C: 128 and its number)"
    CREDENTIALS = 3, "credentials are missing, or the server rejects them"
    BUSY = 4, "the server is busy or limits requests (HTTP 429, 503)"
    ANSWER_FAILED = 5, "the answer failed"
    LEFT_BEHIND = 6, "a chat is, or may be, left on the server; stderr names it"
    STDOUT_CLOSED = 141, "stdout was closed, for example by `head`"
    OTHER = 1, "anything else"
    DONE = 0, "all went well"


def table() -> str:
    """Return the table as lines of text."""
    return "\n".join(f"  {code:3}  {code.meaning}" for code in ExitCode)
