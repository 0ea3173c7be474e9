"""Serves the live page from a thread of its own."""

from __future__ import annotations

import asyncio
import secrets
from types import TracebackType
from typing import Self

from oa_protocol.server.http.runner import HOST, Runner
from oa_protocol.watching._app import App
from oa_protocol.watching._views import ClientView, ServerView


class Watch:
    """A live page. It is there while the ``with`` lasts, or from ``start`` to ``stop``.

    The page is on a free port of loopback, and only someone who has its URL can open it, because a token is in the URL.
    The page loads nothing from elsewhere. It shows no prompts and no answers.
    """

    def __init__(self, view: ClientView | ServerView) -> None:
        self._token = secrets.token_urlsafe(24)
        self._app = App(view, self._token)
        self._runner = Runner(self._app, on_change=lambda: None, on_stop=_nothing)

    def start(self) -> None:
        """Start to serve the page.

        Raises:
            OSError: no port is free.

        """
        self._app.port = self._runner.start(0)

    def stop(self) -> None:
        """Stop to serve the page. If it is stopped already, this does nothing."""
        self._runner.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The URL of the page, with its token. Whoever has it can watch, and make a watched server misbehave."""
        return f"http://{HOST}:{self._app.port}/watch?token={self._token}"


async def _nothing() -> None:
    await asyncio.sleep(0)
