"""Recognizes an account, even if its credentials have changed since, for example by a new token."""

from __future__ import annotations

import hashlib

import anyio

from oa_protocol.bindings.base import Binding, Credentials
from oa_protocol.bindings.replies import Reply
from oa_protocol.client._carrier import fetch
from oa_protocol.engine.errors import OAError, TransportError
from oa_protocol.transports import TransportFactory


class Accounts:
    """Finds out the names of accounts. A name is a hash, so the journal gives nothing away.

    An inference server says which account a token belongs to (OA-1.4). A website doesn't, so there the session stands
    for the account.
    """

    def __init__(self, open_transport: TransportFactory, seconds: float) -> None:
        self._open_transport = open_transport
        self._seconds = seconds
        self._names: dict[str, str] = {}
        self._asking: dict[str, anyio.Event] = {}

    async def name(self, binding: Binding, credentials: Credentials) -> str:
        """Return the account's name. The server is asked once, and for at most the ``seconds`` of this object."""
        session = session_name(binding, credentials)
        if (asking := self._asking.get(session)) is not None:
            await asking.wait()  # chats that begin together ask only once
        elif session not in self._names:
            asking = self._asking[session] = anyio.Event()
            try:
                self._names[session] = await self._ask(binding, credentials) or session
            except TransportError:
                pass  # the server wasn't reached, so it is asked again next time
            except OAError:
                self._names[session] = session  # it was reached, and won't say
            finally:
                del self._asking[session]
                asking.set()
        return self._names.get(session, session)

    async def _ask(self, binding: Binding, credentials: Credentials) -> str | None:
        request = binding.ask_account(credentials)
        if request is None:
            return None
        reply = Reply.of(binding, *await fetch(self._open_transport, request, self._seconds))
        if not reply.is_success:
            raise reply.error("asking for the account")
        return _hashed("account", reply.decode(binding.read_account, "an account", None))


def session_name(binding: Binding, credentials: Credentials) -> str:
    """Return the account's name if the server doesn't say which account the credentials belong to."""
    return _hashed("session", binding.session(credentials))


def _hashed(kind: str, name: str) -> str:
    return hashlib.sha256(f"{kind}\0{name}".encode()).hexdigest()[:32]
