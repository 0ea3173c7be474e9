"""The clients of a site, for threads."""

from __future__ import annotations

import threading
from typing import Any

from oa_protocol import Cleanup, sync
from tests.driver.site import HASTY, Site


def client_of(site: Site, *, cleanup: Cleanup = HASTY, **settings: Any) -> sync.Client:
    return sync.Client(site.server.url, api=site.api, cleanup=cleanup, **{**site.credentials, **settings})


def threads_of_clients() -> set[threading.Thread]:
    """What runs for the clients of this process."""
    return {thread for thread in threading.enumerate() if thread.name.startswith(("oa_protocol.sync", "AnyIO"))}
