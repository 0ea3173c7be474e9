"""A window that stays alive while a thread waits for the server. Set OA_URL and OA_COOKIES, and run it."""

import queue
import threading
import tkinter as tk
from collections.abc import Callable
from tkinter.scrolledtext import ScrolledText

from oa_protocol import LocalProtocolError, OAError, sync

LOOKS_EVERY = 50  # milliseconds


class Worker:
    """Holds a conversation in a thread of its own.

    Its results are passed on in the event loop's thread, because only that thread may use Tk. The worker puts them into
    a queue, which the event loop reads with ``after``. Nothing here makes the event loop wait.
    """

    def __init__(self, root: tk.Misc, client: sync.Client, tell: Callable[[str], object]) -> None:
        self._root = root
        self._client = client
        self._tell = tell
        self._prompts: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._converse)
        self._thread.start()
        self._looking = root.after(LOOKS_EVERY, self._look)

    def ask(self, prompt: str) -> None:
        """Ask this next. ``tell`` gets the pieces of the answer, and then a line end."""
        self._prompts.put(prompt)

    def close(self, then: Callable[[], object]) -> None:
        """Leave, also in the middle of an answer; when the chat is deleted, ``then`` is called."""
        threading.Thread(target=self._close, args=(then,)).start()

    def _converse(self) -> None:
        try:
            with self._client.chat() as chat:
                while (prompt := self._prompts.get()) is not None:
                    for piece in chat.stream(prompt):
                        self._in_event_loop(piece)
                    self._in_event_loop("\n")
        except LocalProtocolError:
            pass  # closed in the middle of an answer
        except OAError as error:
            self._in_event_loop(f"\n{error}\n")

    def _close(self, then: Callable[[], object]) -> None:
        self._prompts.put(None)
        self._client.close()  # which ends the other thread's wait, and deletes its chat
        self._thread.join()
        self._told.put(lambda: self._end(then))

    # ---- between the threads

    def _in_event_loop(self, text: str) -> None:
        self._told.put(lambda: self._tell(text))

    def _look(self) -> None:
        self._looking = self._root.after(LOOKS_EVERY, self._look)
        while not self._told.empty():
            self._told.get()()

    def _end(self, then: Callable[[], object]) -> None:
        self._root.after_cancel(self._looking)
        then()


def main() -> None:
    """Show the window."""
    root = tk.Tk()
    root.title("Open Assistant")
    answers = ScrolledText(root, wrap="word")
    answers.pack(fill="both", expand=True)
    entry = tk.Entry(root)
    entry.pack(fill="x")
    entry.focus()
    worker = Worker(root, sync.Client(), lambda piece: answers.insert("end", piece))

    def ask(_: object) -> None:
        worker.ask(entry.get())
        entry.delete(0, "end")

    def leave() -> None:
        root.withdraw()
        worker.close(root.destroy)

    entry.bind("<Return>", ask)
    root.protocol("WM_DELETE_WINDOW", leave)
    root.mainloop()


if __name__ == "__main__":
    main()
