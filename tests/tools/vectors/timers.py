"""When an engine must be called at the latest: the section "Deadlines" of specs/vectors/README.md, as a model."""

from __future__ import annotations

from math import ceil, inf
from typing import Any

_TIMEOUTS: dict[str, Any] = {"reply": 30.0, "idle": 45.0, "poll": 300.0, "answer": None}
_CLEANUP: dict[str, Any] = {"drain": 5.0, "timeout": 10.0, "attempts": 3}
_WRITES = ("CreateChat", "SendPrompt", "RequestAssistant")
_WITHOUT_LIMIT = ("LoadCredentials", "CloseStream")
_AWAITING = ("PROMPTED", "REQUEST_LOST", "ASSISTANT_REQUESTED", "STREAMING", "POLLING")
_OVER = ("DELETED", "NEVER_CREATED", "LEAKED", "KEPT")


class Timers:
    """The timers of one conversation, in seconds since it began; ``inf`` is one that doesn't run."""

    def __init__(self, timeouts: dict[str, Any], cleanup: dict[str, Any]) -> None:
        self._timeouts, self._cleanup = _TIMEOUTS | timeouts, _CLEANUP | cleanup
        self.now = 0.0
        self._asked = ""
        self._reply = self._silence = self._answer = self._drained = self._gone = inf
        self._paused = 0.0

    @property
    def is_pausing(self) -> bool:
        return not self._asked and self._paused > self.now

    def deadline(self, phase: str) -> float | None:
        ends = self._ends(phase)
        return None if phase in _OVER or ends == inf else round(ends, 6)

    def _ends(self, phase: str) -> float:
        times = [self._gone]
        if self._asked:
            times.append(self._reply)
        elif phase == "STREAMING":
            times.append(self._silence)
        if self.is_pausing:
            times.append(self._paused)
        if phase in _AWAITING and self._gone == inf:
            times.append(self._answer)
        if phase == "DRAINING":
            times.append(self._drained)
        return min(times)

    # ---- what moves them

    def asks(self, kind: str) -> None:
        seconds = self._timeouts["reply"]
        if self._gone < inf:
            seconds = min(seconds, self._share)
        self._asked, self._silence = kind, inf
        self._reply = inf if kind in _WITHOUT_LIMIT else self.now + seconds

    def asks_nothing(self, phase: str) -> None:
        """There is no intent; if a stream is open, its next bytes are awaited from now on."""
        if phase == "STREAMING" and not self._asked and self._silence == inf:
            self._silence = self.now + self._timeouts["idle"]

    def is_settled(self) -> None:
        self._asked, self._paused = "", 0.0

    def gets_data(self) -> None:
        self._silence = inf

    def stream_ends(self) -> None:
        self._silence = inf
        if self._asked == "CloseStream":
            self._asked = ""

    def pauses(self, seconds: float) -> None:
        self._paused = self.now + seconds

    def resumes(self) -> None:
        self.now = self._paused

    def is_prompted(self) -> None:
        limit = self._timeouts["answer"]
        self._answer = inf if limit is None else self.now + limit

    def moves(self, phase: str) -> None:
        self._paused = 0.0
        if phase in ("DRAINING", "DELETING") and self._asked != "CloseStream":
            self._asked = ""
        if phase == "POLLING":
            self._answer = min(self._answer, self.now + self._timeouts["poll"])
        if phase in ("PROMPT_LOST", "REQUEST_LOST"):
            self.pauses(0.5)

    def is_left(self, *, drain: bool) -> None:
        if self._gone == inf:
            whole = self._cleanup["timeout"]
            self._gone = self.now + whole
            self._drained = self.now + min(self._cleanup["drain"], whole - min(self._share, whole / 2))
        if not drain:
            self._drained = min(self._drained, self.now)
        if self._asked in _WRITES:
            self._reply = min(self._reply, self._gone if self._asked == "CreateChat" else self._drained)

    @property
    def _share(self) -> float:
        return float(self._cleanup["timeout"]) / int(self._cleanup["attempts"])

    def is_interrupted(self) -> None:
        if self._gone < inf or self._asked == "CloseStream":
            return
        if self._asked == "CreateChat":
            self._reply = min(self._reply, self.now + self._cleanup["timeout"])
        else:
            self._asked = ""

    def come(self, phase: str) -> None:
        """Let the deadline come; what it was for is no longer waited for."""
        self.now = ceil(self._ends(phase) * 1e6) / 1e6
        if self._asked not in _WITHOUT_LIMIT and (self._reply <= self.now or self._answer <= self.now):
            self._asked = ""
