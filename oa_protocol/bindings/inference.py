"""The inference server's API, which has a bearer token, and ids in the path (specs/protocol.md, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

from oa_protocol.bindings.base import (
    AnswerOptions,
    Credentials,
    build_request,
    check_base_url,
    new_prompt,
    page_query,
)
from oa_protocol.bindings.ids import check_id
from oa_protocol.bindings.json import ChatUpdate, OpenAssistantJson, decode_account, encode
from oa_protocol.engine.intents import HttpRequest

_CHAT_NOT_FOUND = "Chat not found"
_PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class InferenceServer(OpenAssistantJson):
    """The binding to an inference server.

    Args:
        base_url: the server's URL.

    Raises:
        ValueError: ``base_url`` isn't a base URL (see ``check_base_url``).

    """

    base_url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", check_base_url(self.base_url))

    @property
    def api(self) -> str:
        """The API's name in this package."""
        return "inference"

    @property
    def list_confirms_gone(self) -> bool:
        """False, because the server's 404 says what it didn't find."""
        return False

    @property
    def takes_cookies(self) -> bool:
        """False, because the server reads nothing but bearer tokens."""
        return False

    @property
    def models_need_credentials(self) -> bool:
        """False, because the server lists its models to anybody."""
        return False

    def create_chat(self, credentials: Credentials) -> HttpRequest:
        """Return the request ``POST /chats``."""
        # The server refuses this request if it has no JSON body.
        return build_request("POST", f"{self.base_url}/chats", credentials, body=b"{}")

    def send_prompt(self, credentials: Credentials, chat_id: str, parent_id: str | None, content: str) -> HttpRequest:
        """Return the request ``POST /chats/{chat_id}/prompter_message``."""
        body = new_prompt(parent_id, content)
        return build_request("POST", f"{self._chat(chat_id)}/prompter_message", credentials, body=body)

    def request_assistant(
        self, credentials: Credentials, chat_id: str, parent_id: str, options: AnswerOptions
    ) -> HttpRequest:
        """Return the request ``POST /chats/{chat_id}/assistant_message``."""
        body = encode(options.body(parent_id))
        return build_request("POST", f"{self._chat(chat_id)}/assistant_message", credentials, body=body)

    def open_stream(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        """Return the request ``GET /chats/{chat_id}/messages/{message_id}/events``."""
        return build_request("GET", f"{self._message(chat_id, message_id)}/events", credentials, stream=True)

    def fetch_message(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        """Return the request ``GET /chats/{chat_id}/messages/{message_id}``."""
        return build_request("GET", self._message(chat_id, message_id), credentials)

    def fetch_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        """Return the request ``GET /chats/{chat_id}``."""
        return build_request("GET", self._chat(chat_id), credentials)

    def list_chats(
        self, credentials: Credentials, after: str | None = None, *, include_hidden: bool = False
    ) -> HttpRequest:
        """Return the request ``GET /chats``, for a page of the largest size."""
        query = page_query(after, limit=_PAGE_SIZE, include_hidden=include_hidden)
        return build_request("GET", f"{self.base_url}/chats{query}", credentials)

    def update_chat(self, credentials: Credentials, chat_id: str, update: ChatUpdate) -> HttpRequest:
        """Return the request ``PUT /chats/{chat_id}``."""
        return build_request("PUT", self._chat(chat_id), credentials, body=encode(update))

    def list_models(self, credentials: Credentials) -> HttpRequest:
        """Return the request ``GET /configs/model_configs``."""
        return build_request("GET", f"{self.base_url}/configs/model_configs", credentials)

    def delete_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        """Return the request ``DELETE /chats/{chat_id}``."""
        return build_request("DELETE", self._chat(chat_id), credentials)

    def ask_account(self, credentials: Credentials) -> HttpRequest:
        """Return the request ``GET /auth/check``. Its reply is the user's id."""
        return build_request("GET", f"{self.base_url}/auth/check", credentials)

    def read_account(self, body: bytes) -> str:
        """Return the user's id, which stays the same if the token changes."""
        return decode_account(body)

    def session(self, credentials: Credentials) -> str:
        """Return the token."""
        return credentials.token or ""

    def is_deleted(self, status: int, body: bytes) -> bool:
        """Return true for a 2xx without content, and for a 404 that says ``Chat not found``."""
        return (200 <= status < 300 and body in (b"", b"null")) or self.is_not_found(status, body)

    def is_not_found(self, status: int, body: bytes) -> bool:
        """Return true for a 404 that says ``Chat not found``. Other 404s come from a proxy."""
        return status == 404 and self.read_error(body) == _CHAT_NOT_FOUND

    def _chat(self, chat_id: str) -> str:
        return f"{self.base_url}/chats/{check_id(chat_id)}"

    def _message(self, chat_id: str, message_id: str) -> str:
        return f"{self._chat(chat_id)}/messages/{check_id(message_id)}"
