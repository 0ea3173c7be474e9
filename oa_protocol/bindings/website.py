"""The website's API, which a browser uses: cookies, ids in the query or the body (specs/protocol.md, section 4)."""

from __future__ import annotations

import re
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
from oa_protocol.bindings.json import OpenAssistantJson, encode
from oa_protocol.engine.intents import HttpRequest

_SESSION_COOKIE = re.compile(r"(?:__Secure-)?next-auth\.session-token(?:\.([0-9]{1,3}))?")


@dataclass(frozen=True, slots=True)
class Website(OpenAssistantJson):
    """The binding to a website in front of an inference server. Raises ValueError for a bad ``base_url``."""

    base_url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", check_base_url(self.base_url))

    @property
    def api(self) -> str:
        """The API's name in this package."""
        return "website"

    @property
    def list_confirms_gone(self) -> bool:
        """True: the website says 404 also when its own key is rejected upstream, or chat is switched off."""
        return True

    def create_chat(self, credentials: Credentials) -> HttpRequest:
        """``POST /api/chat``."""
        return build_request("POST", f"{self.base_url}/api/chat", credentials, body=b"{}")

    def send_prompt(self, credentials: Credentials, chat_id: str, parent_id: str | None, content: str) -> HttpRequest:
        """``POST /api/chat/prompter_message``."""
        body = new_prompt(parent_id, content, chat_id=check_id(chat_id))
        return build_request("POST", f"{self.base_url}/api/chat/prompter_message", credentials, body=body)

    def request_assistant(
        self, credentials: Credentials, chat_id: str, parent_id: str, options: AnswerOptions
    ) -> HttpRequest:
        """``POST /api/chat/assistant_message``."""
        answer = options.body(parent_id, chat_id=check_id(chat_id))
        url = f"{self.base_url}/api/chat/assistant_message"
        return build_request("POST", url, credentials, body=encode(answer))

    def open_stream(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        """``GET /api/chat/events``."""
        url = f"{self.base_url}/api/chat/events?chat_id={check_id(chat_id)}&message_id={check_id(message_id)}"
        return build_request("GET", url, credentials, stream=True)

    def fetch_message(self, credentials: Credentials, chat_id: str, message_id: str) -> HttpRequest:
        """``GET /api/chat/message``."""
        url = f"{self.base_url}/api/chat/message?chat_id={check_id(chat_id)}&message_id={check_id(message_id)}"
        return build_request("GET", url, credentials)

    def fetch_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        """``GET /api/chat?chat_id=``."""
        return build_request("GET", f"{self.base_url}/api/chat?chat_id={check_id(chat_id)}", credentials)

    def list_chats(self, credentials: Credentials, after: str | None = None) -> HttpRequest:
        """``GET /api/chat``: twenty a page, whatever one asks for."""
        return build_request("GET", f"{self.base_url}/api/chat{page_query(after)}", credentials)

    def list_models(self, credentials: Credentials) -> HttpRequest:
        """``GET /api/chat/models``."""
        return build_request("GET", f"{self.base_url}/api/chat/models", credentials)

    def delete_chat(self, credentials: Credentials, chat_id: str) -> HttpRequest:
        """``DELETE /api/chat?chat_id=``."""
        return build_request("DELETE", f"{self.base_url}/api/chat?chat_id={check_id(chat_id)}", credentials)

    def ask_account(self, credentials: Credentials) -> HttpRequest | None:
        """None: the website's API never says whose session it is."""
        return None

    def read_account(self, body: bytes) -> str:
        """Not used, because nothing is asked."""
        return body.decode()

    def session(self, credentials: Credentials) -> str:
        """Return the session's token, whose parts are joined in the order of their numbers, or else all credentials.

        Other cookies change with every visit. A new login changes the session, too, and so may a visit to the website
        with a browser.
        """
        parts = {
            int(found[1] or 0): value
            for name, value in credentials.cookies.items()
            if (found := _SESSION_COOKIE.fullmatch(name)) is not None
        }
        token = "".join(parts[number] for number in sorted(parts)) or credentials.token
        return token or credentials.text

    def is_deleted(self, status: int, body: bytes) -> bool:
        """Only a 200 with an empty body says so; a second DELETE answers 500."""
        return status == 200 and not body

    def is_not_found(self, status: int, body: bytes) -> bool:
        """A 404 with an empty body says so, if the list of chats answers as well."""
        return status == 404 and not body
