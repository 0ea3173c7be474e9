"""Raw HTTP for both APIs, behind one set of names."""

import json
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from oa_protocol.server import Account, Server

JSON = {"Content-Type": "application/json"}


class Peer(Protocol):
    http: httpx.Client

    def create(self) -> httpx.Response: ...
    def prompt(self, chat: str, **body: Any) -> httpx.Response: ...
    def request(self, chat: str, **body: Any) -> httpx.Response: ...
    def events(self, chat: str, message: str) -> AbstractContextManager[httpx.Response]: ...
    def message(self, chat: str, message: str) -> httpx.Response: ...
    def chat(self, chat: str) -> httpx.Response: ...
    def list_chats(self, **query: Any) -> httpx.Response: ...
    def update(self, chat: str, **body: Any) -> httpx.Response: ...
    def delete(self, chat: str) -> httpx.Response: ...
    def models(self) -> httpx.Response: ...


class Website:
    def __init__(self, server: Server, account: Account | None = None) -> None:
        self.http = httpx.Client(
            base_url=server.url,
            cookies=(account or server.account()).cookies,
            trust_env=False,
            verify=False,
            timeout=60,
        )

    def create(self) -> httpx.Response:
        return self.http.post("/api/chat", json={})

    def prompt(self, chat: str, **body: Any) -> httpx.Response:
        return self.http.post("/api/chat/prompter_message", content=encode({"chat_id": chat, **body}), headers=JSON)

    def request(self, chat: str, **body: Any) -> httpx.Response:
        return self.http.post("/api/chat/assistant_message", json={"chat_id": chat, **body})

    def events(self, chat: str, message: str) -> AbstractContextManager[httpx.Response]:
        return self.http.stream("POST", "/api/chat/events", params={"chat_id": chat, "message_id": message})

    def message(self, chat: str, message: str) -> httpx.Response:
        return self.http.get("/api/chat/message", params={"chat_id": chat, "message_id": message})

    def chat(self, chat: str) -> httpx.Response:
        return self.http.get("/api/chat", params={"chat_id": chat})

    def list_chats(self, **query: Any) -> httpx.Response:
        return self.http.get("/api/chat", params=query)

    def update(self, chat: str, **body: Any) -> httpx.Response:
        return self.http.put("/api/chat", json={"chat_id": chat, **body})

    def delete(self, chat: str) -> httpx.Response:
        return self.http.delete("/api/chat", params={"chat_id": chat})

    def models(self) -> httpx.Response:
        return self.http.get("/api/chat/models")


class Inference:
    def __init__(self, server: Server, account: Account | None = None) -> None:
        self.server = server
        token = (account or server.account()).token
        headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(base_url=server.url, headers=headers, trust_env=False, verify=False, timeout=60)

    def create(self) -> httpx.Response:
        return self.http.post("/chats", json={})

    def prompt(self, chat: str, **body: Any) -> httpx.Response:
        return self.http.post(f"/chats/{chat}/prompter_message", content=encode(body), headers=JSON)

    def request(self, chat: str, **body: Any) -> httpx.Response:
        return self.http.post(f"/chats/{chat}/assistant_message", json=body)

    def events(self, chat: str, message: str) -> AbstractContextManager[httpx.Response]:
        return self.http.stream("GET", f"/chats/{chat}/messages/{message}/events")

    def message(self, chat: str, message: str) -> httpx.Response:
        return self.http.get(f"/chats/{chat}/messages/{message}")

    def chat(self, chat: str) -> httpx.Response:
        return self.http.get(f"/chats/{chat}")

    def list_chats(self, **query: Any) -> httpx.Response:
        return self.http.get("/chats", params=query)

    def update(self, chat: str, **body: Any) -> httpx.Response:
        return self.http.put(f"/chats/{chat}", json=body)

    def delete(self, chat: str) -> httpx.Response:
        return self.http.delete(f"/chats/{chat}")

    def models(self) -> httpx.Response:
        return self.http.get("/configs/model_configs")


def encode(body: object) -> str:
    """ASCII JSON, in which even a lone surrogate can be written."""
    return json.dumps(body)


def new_chat(peer: Peer) -> str:
    return str(peer.create().raise_for_status().json()["id"])


def prompted(peer: Peer, content: str = "Hello") -> tuple[str, str]:
    """A chat with one prompt: their ids."""
    chat = new_chat(peer)
    return chat, str(peer.prompt(chat, content=content).raise_for_status().json()["id"])


def ask(peer: Peer, chat: str, prompt: str) -> str:
    """Requests an answer: the assistant message's id."""
    reply = peer.request(chat, parent_id=prompt, model_config_name="_lorem")
    return str(reply.raise_for_status().json()["id"])


def asked(peer: Peer, content: str = "Hello") -> tuple[str, str]:
    """A chat in which an answer has been requested: the chat's and the assistant message's id."""
    chat, prompt = prompted(peer, content)
    return chat, ask(peer, chat, prompt)


def parse(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream, pings left out."""
    blocks = body.decode("ascii").split("\r\n\r\n")
    return [json.loads(block.removeprefix("data: ")) for block in blocks if block.startswith("data: ")]


def blocks(reply: httpx.Response) -> Iterator[bytes]:
    """The events of an open stream one by one, each with its blank line."""
    buffer = b""
    for piece in reply.iter_raw():
        buffer += piece
        while b"\r\n\r\n" in buffer:
            block, _, buffer = buffer.partition(b"\r\n\r\n")
            yield block + b"\r\n\r\n"


def read_stream(peer: Peer, chat: str, message: str) -> list[dict[str, Any]]:
    with peer.events(chat, message) as reply:
        assert reply.status_code == 200
        return parse(reply.read())


def state(server: Server, message: str) -> str:
    return next(one.state for chat in server.chats for one in chat.messages if one.id == message)


def connected(server: Server) -> socket.socket:
    port = urlsplit(server.url).port
    assert port is not None
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def create_and_leave(server: Server, peer: Peer) -> None:
    """Ask for a chat, and leave once the server has read that."""
    request = peer.http.build_request("POST", "/api/chat" if isinstance(peer, Website) else "/chats", json={})
    fields = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with connected(server) as connection:
        connection.sendall(f"POST {request.url.path} HTTP/1.1\r\n{fields}\r\n".encode() + request.content)
        server.wait_for("create")


def exchange(server: Server, request: bytes) -> bytes:
    """What comes back on a connection of its own, up to its end."""
    with connected(server) as connection:
        connection.sendall(request)
        return received(connection)


def received(connection: socket.socket) -> bytes:
    """What comes up to the connection's end."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found
