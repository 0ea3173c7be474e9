"""One method for each usual fault of a server."""

from __future__ import annotations

from oa_protocol.server import Answer, Fault, Hang, Reply, Reset, Scripted, Server, Step, StreamFault, WorkerError


class Faults:
    """Makes ``server`` misbehave. Each call scripts one fault, and the faults happen in this order (``Server.script``).

    In all methods, ``step`` is the kind of request: ``create``, ``prompt``, ``request``, ``events``, ``message``,
    ``chat``, ``list``, ``models`` or ``delete``. ``times`` is how many such requests in a row have the fault. Each
    method raises ``ValueError`` if the step is unknown, if ``times`` is less than 1, or if a number is negative.

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
        """Reset the connection, and don't carry out the request."""
        self.script(Fault(step, before=Reset(), times=times))

    def lose_reply(self, step: Step, *, times: int = 1) -> None:
        """Carry out the request, and reset the connection before the reply is sent.

        Raises:
            ValueError: the step is ``events``. Use ``break_stream`` to break a stream.

        """
        self.script(Fault(step, after=Reset(), times=times))

    def hang(self, step: Step, *, times: int = 1) -> None:
        """Never reply, and don't carry out the request. The connection stays open until the client leaves."""
        self.script(Fault(step, before=Hang(), times=times))

    def answer(
        self, step: Step, status: int, body: bytes = b"", *, headers: dict[str, str] | None = None, times: int = 1
    ) -> None:
        """Reply like this, and don't carry out the request."""
        reply = Reply(status, body, tuple((headers or {}).items()))
        self.script(Fault(step, before=reply, times=times))

    def break_stream(self, *, after_events: int = 0, times: int = 1) -> None:
        """Reset the stream's connection after so many events. Pings don't count."""
        self.script(StreamFault(after_events, Reset(), times=times))

    def fail_answer(self, words: str = "Aborted due to worker error.", *, after_pieces: int = 0) -> None:
        """Let the worker of the next answer fail after so many pieces of text, with this error message."""
        self.script(Answer(after=after_pieces, then=WorkerError(words)))

    def script(self, *scripted: Scripted) -> None:
        """Script any behaviour of the server. ``oa_protocol.server`` lists them."""
        self._server.script(*scripted)
