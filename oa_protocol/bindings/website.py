"""The website's API, which has cookies, and ids in the query or the body (specs/protocol.md, section 4)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from msgspec.structs import replace

from oa_protocol.bindings.base import (
    AnswerOptions,
    Credentials,
    build_request,
    check_base_url,
    new_prompt,
    page_query,
)
from oa_protocol.bindings.ids import check_id
from oa_protocol.bindings.json import ChatUpdate, OpenAssistantJson, encode
from oa_protocol.engine.intents import HttpRequest

_SESSION_COOKIE = re.compile(r"(?:__Secure-)?next-auth\.session-token(?:\.([0-9]{1,3}))?")


@dataclass(frozen=True, slots=True)
class Website(OpenAssistantJson):
    """The binding to a website in front of an inference server.

    Args:
        base_url: the website's URL.

    Raises:
        ValueError: ``base_url`` isn't a base URL (see ``check_base_url``).

    """

    base_url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", check_base_url(self.base_url))

    @property
    def api(self) -> str:
        """The API's name in this package."""
        return "website"

    @property
    def list_confirms_gone(self) -> bool:
        """True, because the website also says 404 if its own key is rejected upstream, or if chat is switched off."""
        return True

    @property
    def takes_cookies(self) -> bool:
        """True, because a browser's session is a cookie."""
        return True

    @property
    def models_need_credentials(self) -> bool:
        """True, because the website lists nothing to strangers."""
        return True

    def create_chat(self, credentials: Credentials) -> HttpRequest:
        """Return the request ``POST /api/chat``."""
        return build_request("POST", f"{self.base_url}/api/chat", credentials, body=b"{}")

    def send_prompt(self, credentials: Credentials, chat_id: str, parent_id: str | None, content: str) -> HttpRequest:
        """Return the request ``POST /api/chat/prompter_message``."""
        body = new_prompt(parent_id, content, chat_id=check_id(chat_id))
        return build_request("POST", f"{self.base_url}/api/chat/prompter_message", credentials, body=body)

    def request_assistant(
        self, credentials: Credentials, chat_id: str, parent_id: str, options: AnswerOptions
    ) -> HttpRequest:
        """Return the request ``POST /api/chat/assistant_message``."""
        answer = options.body(parent_id, chat_id=check_id(chat_id))
        url = f"{self.base_url}/api/chat/assistant_message"
        return build_request("POST", url, credentials, body=encode(answer))

    def open_stream(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        """Return the request ``GET /api/chat/events``."""
        url = f"{self.base_url}/api/chat/events?chat_id={check_id(chat_id)}&message_id={check_id(message_id)}"
        return build_request("GET", url, credentials, stream=True)

    def fetch_message(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        """Return the request ``GET /api/chat/message``."""
        url = f"{self.base_url}/api/chat/message?chat_id={check_id(chat_id)}&message_id={check_id(message_id)}"
        return build_request("GET", url, credentials)

    def fetch_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        """Return the request ``GET /api/chat?chat_id=``."""
        return build_request("GET", f"{self.base_url}/api/chat?chat_id={check_id(chat_id)}", credentials)

    def list_chats(
        self, credentials: Credentials, after: str | None = None, *, include_hidden: bool = False
    ) -> HttpRequest:
        """Return the request ``GET /api/chat``. A page always has twenty chats."""
        query = page_query(after, include_hidden=include_hidden)
        return build_request("GET", f"{self.base_url}/api/chat{query}", credentials)

    def update_chat(self, credentials: Credentials, chat_id: str, update: ChatUpdate) -> HttpRequest:
        """Return the request ``PUT /api/chat``."""
        body = encode(replace(update, chat_id=check_id(chat_id)))
        return build_request("PUT", f"{self.base_url}/api/chat", credentials, body=body)

    def list_models(self, credentials: Credentials) -> HttpRequest:
        """Return the request ``GET /api/chat/models``."""
        return build_request("GET", f"{self.base_url}/api/chat/models", credentials)

    def delete_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        """Return the request ``DELETE /api/chat?chat_id=``."""
        return build_request("DELETE", f"{self.base_url}/api/chat?chat_id={check_id(chat_id)}", credentials)

    def ask_account(self, credentials: Credentials) -> HttpRequest | None:
        """Return None, because the website's API has no request that names the account."""
        return None

    def read_account(self, body: bytes) -> str:
        """Return the body. This is never called, because ``ask_account`` returns None."""
        return body.decode()

    def session(self, credentials: Credentials) -> str:
        """Return the token of the session cookie, or all credentials if there is no such cookie.

        If the cookie is split, its parts are joined in the order of their numbers. Other cookies are left out, because
        they change with every visit. A new login changes the token, and a visit with a browser may change it, too.
        """
        parts = {
            int(found[1] or 0): value
            for name, value in credentials.cookies.items()
            if (found := _SESSION_COOKIE.fullmatch(name)) is not None
        }
        token = "".join(parts[number] for number in sorted(parts)) or credentials.token
        return token or credentials.text

    def is_deleted(self, status: int, body: bytes) -> bool:
        """Return true for a 200 with an empty body only. The reply to a second DELETE is a 500."""
        return status == 200 and not body

    def is_not_found(self, status: int, body: bytes) -> bool:
        """Return true for a 404 with an empty body. It counts only if the list of chats can be read, too."""
        return status == 404 and not body
