"""The page's web server: the page, a stream of what it shows, and the buttons."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from oa_protocol.server.http.runner import HOST
from oa_protocol.tape._phases_svg import MARKERS, STYLE, phases_svg
from oa_protocol.watching._views import Snapshot

INTERVAL = 0.2
"""How often the page looks for changes, in seconds."""
KEEP_ALIVE = 15.0
"""After how many seconds without a change a comment is sent, so that the end of a page's connection is noticed."""

_FOLDER = Path(__file__).parent
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


class View(Protocol):
    """What the page shows. ``faults`` are the buttons: names and labels."""

    title: str
    heading: str
    faults: Mapping[str, str]

    def snapshot(self) -> Snapshot:
        """Return what to show now."""
        ...

    def script(self, fault: str) -> None:
        """Script a fault. Raise KeyError if there is none with this name."""
        ...


class App:
    """The ASGI application. ``port`` has to be set before the first request.

    A page of another site can make a browser send requests here. So each request must name this server in ``Host``, and
    its ``Origin``, if it has one, must be this server's. All but the style and the script also need the token.
    """

    def __init__(self, view: View, token: str) -> None:
        self.port = 0
        self._view = view
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. When the server stops, it cancels the streams that are left."""
        if scope["type"] == "http":
            with suppress(asyncio.CancelledError):
                response = self._respond(Request(scope))
                response.headers.update(_HEADERS)
                await response(scope, receive, send)

    def _respond(self, request: Request) -> Response:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if host != f"{HOST}:{self.port}" or origin not in (None, f"http://{host}"):
            return PlainTextResponse("The request is meant for another server.", 403)
        match request.method, request.url.path:
            case "GET", "/watch/page.css":
                return Response(STYLE + _text("page.css"), media_type="text/css")
            case "GET", "/watch/page.js":
                return Response(_text("page.js"), media_type="text/javascript")
            case _ if not secrets.compare_digest(request.query_params.get("token", "").encode(), self._token.encode()):
                return PlainTextResponse("The URL has no token, or a wrong one.", 403)
            case "GET", "/watch":
                return Response(self._page(), media_type="text/html")
            case "GET", "/watch/events":
                return StreamingResponse(self._events(), media_type="text/event-stream")
            case "POST", "/watch/faults" if origin is not None:
                return self._script(request.query_params.get("fault", ""))
            case _:
                return PlainTextResponse("There is nothing here.", 404)

    def _page(self) -> str:
        buttons = [
            f'<button type="button" data-fault="{escape(name)}">{escape(label)}</button>'
            for name, label in self._view.faults.items()
        ]
        faults = f'<section><h2>Faults</h2><p class="buttons">{"".join(buttons)}</p></section>' if buttons else ""
        return (
            _text("page.html")
            .replace("{diagram}", phases_svg(standalone=False).replace("<title>", f"{MARKERS}<title>", 1))
            .replace("{faults}", faults)
            .replace("{heading}", escape(self._view.heading))
            .replace("{title}", escape(self._view.title))
        )

    def _script(self, fault: str) -> Response:
        try:
            self._view.script(fault)
        except KeyError:
            return PlainTextResponse("There is no such fault.", 404)
        return Response(status_code=204)

    async def _events(self) -> AsyncIterator[bytes]:
        last, waited = b"", 0.0
        while True:
            shown = msgspec.json.encode(self._view.snapshot())
            if shown != last:
                last, waited = shown, 0.0
                yield b"data: %s\n\n" % shown
            elif waited >= KEEP_ALIVE:
                waited = 0.0
                yield b": still here\n\n"
            await asyncio.sleep(INTERVAL)
            waited += INTERVAL


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
