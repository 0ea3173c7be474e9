"""What a server does wrong in one conversation. It may do anything except lie about which chats exist."""

from random import Random

from oa_protocol.server import (
    Abandon,
    Answer,
    Close,
    End,
    Fault,
    Freeze,
    Hang,
    Never,
    Outcome,
    Raw,
    Reply,
    Reset,
    Scripted,
    Send,
    Step,
    StreamAction,
    StreamFault,
    WorkerError,
)

STEPS: tuple[Step, ...] = ("create", "prompt", "request", "message", "chat", "list", "delete")

# A 2xx or a 404 would say something about a chat, so there is none here.
BEFORE: tuple[Outcome, ...] = (
    Reply(500, b"Internal Server Error"),
    Reply(502, b"<html>Bad Gateway</html>"),
    Reply(503, b"", (("retry-after", "1"),)),
    Reply(429, b'{"detail": "slow down"}'),
    Reply(418, b'{"detail": "no such luck"}'),
    Reset(),
    Close(),
    Hang(),
    Raw(b"\x16\x03\x01 this is no HTTP\r\n\r\n"),
    Raw(b"HTTP/9.9 200 OK\r\ncontent-length: 4\r\n\r\nnull"),
    Raw(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nno!HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    Raw(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 1000\r\n\r\ncut"),
)
AFTER: tuple[Outcome, ...] = (Reset(), Close(), Hang(), Reply(502, b"<html>Bad Gateway</html>"))
STREAM: tuple[StreamAction, ...] = (
    Reset(),
    Close(),
    End(),
    Hang(),
    Send(b": a comment\r\n\r\n"),
    Send(b"event: ping\r\ndata: not JSON\r\n\r\n"),
    Send(b'data: {"event_type": "of another server"}\r\n\r\n'),
    Send(b"data: not JSON\r\n\r\n"),
)


def draw_faults(random: Random) -> list[Scripted]:
    """Return up to five faults."""
    return [_draw_fault(random) for _ in range(random.choice((0, 1, 2, 3, 5)))]


def _draw_fault(random: Random) -> Scripted:
    times, skip = random.choice((1, 1, 2, 1000)), random.choice((0, 0, 1))
    match random.choice(("before", "before", "after", "stream", "opening", "answer")):
        case "before":
            return Fault(random.choice(STEPS), before=random.choice(BEFORE), times=times, skip=skip)
        case "after":
            return Fault(random.choice(STEPS), after=random.choice(AFTER), times=times, skip=skip)
        case "stream":
            return StreamFault(after_events=random.choice((0, 1, 3)), then=random.choice(STREAM), times=times)
        case "opening":
            return Fault("events", before=random.choice(BEFORE), times=times)
        case _:
            then = random.choice((WorkerError(), Freeze(), Never(), Abandon("cancelled"), Abandon("timeout")))
            return Answer(after=random.choice((0, 1, 3)), then=then, skip=skip)
