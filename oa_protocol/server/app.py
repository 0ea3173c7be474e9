"""The ASGI application: both APIs on one port."""

import asyncio
import contextlib

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from oa_protocol.server import inference, website
from oa_protocol.server.backend import Backend
from oa_protocol.server.replies import (
    BareReply,
    inference_empty,
    inference_json,
    website_headers,
    website_text,
)


def make_app(backend: Backend) -> ASGIApp:
    """The application for `backend`; it needs an asyncio loop."""
    app = Starlette(
        routes=[*website.routes(backend), *inference.routes(backend)], exception_handlers={HTTPException: _no_route}
    )
    app.router.redirect_slashes = False

    async def quiet_app(scope: Scope, receive: Receive, send: Send) -> None:
        # The server's end cancels what is still open, when its connection is gone already.
        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return quiet_app


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type; Starlette's signature is wider
    path = request.url.path
    on_website = path.startswith("/api/")
    if error.status_code == 404 and path.endswith("/") and path != "/":
        target = path.rstrip("/") + (f"?{request.url.query}" if request.url.query else "")
        if on_website:
            headers = [("location", target), ("refresh", f"0;url={target}"), *website_headers()]
            return BareReply(308, headers, target.encode())
        return inference_empty(307, [("location", f"http://{request.url.netloc}{target}")])
    if on_website:
        return website_text(404, "404: This page could not be found")
    allow = [("allow", error.headers["Allow"])] if error.headers else []
    return inference_json(error.status_code, {"detail": error.detail}, allow)
