"""The usual misbehaviour of a server, in one call each."""

from __future__ import annotations

from oa_protocol.server import Answer, Fault, Reply, Reset, Scripted, Server, Step, StreamFault, WorkerError


class Faults:
    """Makes ``server`` misbehave: each call scripts one fault, and they happen in this order (``Server.script``).

    ``step`` is what a request asks for: ``create``, ``prompt``, ``request``, ``events``, ``message``, ``chat``,
    ``list``, ``models`` or ``delete``. ``times`` is how many requests for it the fault meets, one after the other.
    Each call raises ValueError for an unknown step, for less than one time, and for a negative number.

    >>> server = Server()
    >>> faults = Faults(server)
    >>> faults.lose_reply("create")
    >>> faults.answer("delete", 500, times=2)
    >>> len(server.unused_faults)
    2
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def lose_request(self, step: Step, *, times: int = 1) -> None:
        """The connection is reset, and the request is not carried out."""
        self.script(Fault(step, before=Reset(), times=times))

    def lose_reply(self, step: Step, *, times: int = 1) -> None:
        """The request is carried out, and the connection is reset before its reply.

        Raises ValueError for ``events``: a stream is broken by ``break_stream``.
        """
        self.script(Fault(step, after=Reset(), times=times))

    def answer(
        self, step: Step, status: int, body: bytes = b"", *, headers: dict[str, str] | None = None, times: int = 1
    ) -> None:
        """The request is not carried out, and answered so."""
        reply = Reply(status, body, tuple((headers or {}).items()))
        self.script(Fault(step, before=reply, times=times))

    def break_stream(self, *, after_events: int = 0, times: int = 1) -> None:
        """The stream's connection is reset after so many events (pings not counted)."""
        self.script(StreamFault(after_events, Reset(), times=times))

    def fail_answer(self, words: str = "Aborted due to worker error.", *, after_pieces: int = 0) -> None:
        """The next answer's worker gives up after so many pieces, with these words."""
        self.script(Answer(after=after_pieces, then=WorkerError(words)))

    def script(self, *scripted: Scripted) -> None:
        """Anything that the server can be told, see ``oa_protocol.server``."""
        self._server.script(*scripted)
