"""A server in a thread, for what no HTTP server does."""

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress


def read_head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(65536)
        if not data:
            break
        head += data
    return head


@contextmanager
def peer(serve: Callable[[socket.socket], None]) -> Generator[int]:
    """Give each connection to ``serve``, one after the other; yield the port."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]

        def run() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if stop.is_set():
                        return
                    with suppress(OSError):  # the other side left
                        serve(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield port
        finally:
            stop.set()
            socket.create_connection(("127.0.0.1", port)).close()
            thread.join(10)
