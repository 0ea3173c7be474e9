"""Makes the live page. It imports the rest only when it is called, because that needs the extra ``server``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oa_protocol.client import client, sync
    from oa_protocol.server import Server
    from oa_protocol.watching.page import Watch


def watch(watched: client.Client | sync.Client | Server) -> Watch:
    """Return a live page about a client or an embedded server. It needs the extra ``server``.

    Each conversation is a dot on the diagram of the phases. There are counts of those that wait, run, or are left
    behind, and a list of what is being done. For a server, the list has the last requests, and there are buttons for
    the usual faults::

        with watch(client) as page:
            print(page.url)  # open it in a browser

    Args:
        watched: the client or the server.

    Raises:
        ImportError: starlette or uvicorn isn't installed.

    """
    try:
        from oa_protocol.server import Server
        from oa_protocol.watching._views import ClientView, ServerView
        from oa_protocol.watching.page import Watch
    except ImportError as error:
        raise ImportError("watching needs the extra server: pip install 'oa_protocol[server]'") from error
    return Watch(ServerView(watched) if isinstance(watched, Server) else ClientView(watched))
