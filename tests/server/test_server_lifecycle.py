"""Starting and stopping, from threads and from either event loop."""

import asyncio
import contextlib
import gc
import logging
import threading
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx
import pytest

from oa_protocol.server import Answer, Fault, Freeze, Hang, Hold, Reset, Server, StreamFault

from .helpers import Inference, Website, asked, blocks, read_stream


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def refused(server: Server) -> bool:
    try:
        httpx.get(f"{server.url}/chats")
    except httpx.ConnectError:
        return True
    return False


def fails(inference: Inference, path: str) -> None:
    with pytest.raises(httpx.TransportError):
        inference.http.get(path)


def test_a_server_runs_from_enter_to_exit() -> None:
    with Server() as server:
        assert httpx.get(f"{server.url}/chats").status_code == 403
    assert refused(server)
    assert "oa_protocol.server" not in threads()


@pytest.mark.anyio
async def test_a_server_runs_inside_either_event_loop() -> None:
    async with Server() as server:
        async with httpx.AsyncClient(base_url=server.url, cookies=server.cookies) as client:
            assert (await client.post("/api/chat", json={})).status_code == 200
        await anyio.to_thread.run_sync(server.wait_for, "create")
    assert refused(server)


@pytest.mark.anyio
async def test_a_cancelled_block_stops_its_server() -> None:
    server = Server()
    with anyio.CancelScope() as scope:
        async with server:
            scope.cancel()
            await anyio.sleep_forever()
    assert refused(server)


def test_stopping_twice_does_nothing() -> None:
    with Server() as server:
        server.stop()
    server.stop()


def test_a_server_starts_only_once() -> None:
    with Server() as server, pytest.raises(RuntimeError):
        server.start()


def test_a_server_that_never_started_can_be_stopped() -> None:
    Server().stop()


def test_a_port_that_is_taken_is_an_error() -> None:
    with Server() as server, pytest.raises(OSError, match="in use"):
        Server(port=urlsplit(server.url).port or 0).start()


def test_a_stopped_server_still_tells_what_there_was() -> None:
    with Server() as server, Website(server).http as http:
        http.post("/api/chat", json={})
    assert len(server.chats) == len(server.requests) == 1
    assert server.connections == 0


def test_stopping_cuts_open_streams_hanging_requests_and_held_workers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "oa_protocol.server")
    with contextlib.ExitStack() as stack:
        server = Server(pending_interval=0.01)
        server.start()
        inference = Inference(server)
        stack.enter_context(inference.http)
        server.script(
            Answer(then=Freeze()),
            Answer(then=Hold()),
            StreamFault(skip=1, then=Hang()),
            Fault("list", before=Hang()),
            Fault("models", before=Hold()),
        )
        streams = [stack.enter_context(inference.events(*asked(inference))) for _ in range(2)]
        next(blocks(streams[0]))
        waiting = [
            threading.Thread(target=fails, args=(inference, path)) for path in ("/chats", "/configs/model_configs")
        ]
        for thread in waiting:
            thread.start()
        server.wait_for("list")
        server.wait_for("models")
        server.stop()
        for thread in waiting:
            thread.join()
        assert server.connections == 0
    gc.collect()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_many_servers_start_and_stop_one_after_the_other() -> None:
    for _ in range(20):
        with Server() as server:
            assert server.connections == 0


def test_the_application_can_be_used_in_memory() -> None:
    async def run() -> int:
        server = Server(reader_grace=0)
        transport = httpx.ASGITransport(server.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x", cookies=server.cookies) as client:
            await client.post("/api/chat", json={})
        return len(server.chats)

    assert asyncio.run(run()) == 1


def test_a_fault_that_cuts_is_an_error_in_memory() -> None:
    async def run() -> None:
        server = Server()
        server.script(Fault("create", before=Reset()))
        transport = httpx.ASGITransport(server.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x", cookies=server.cookies) as client:
            await client.post("/api/chat", json={})

    with pytest.raises(ConnectionResetError):
        asyncio.run(run())


def test_a_thousand_streams_at_once() -> None:
    count = 1000
    with Server(workers=count, reader_grace=60) as server:
        server.script(Answer(("a ", "b ", "c"), times=count))
        accounts = [server.account(f"user {number}") for number in range(count)]

        async def converse(token: str) -> bytes:
            host, port = urlsplit(server.url).hostname, urlsplit(server.url).port
            reader, writer = await asyncio.open_connection(host, port)

            async def call(method: str, path: str, body: str = "") -> bytes:
                head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                status = await reader.readuntil(b"\r\n\r\n")
                assert status.startswith(b"HTTP/1.1 200 "), status
                if b"chunked" in status:
                    return await reader.readuntil(b"\r\n0\r\n\r\n")
                length = int(status.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                return await reader.readexactly(length)

            chat = (await call("POST", "/chats", "{}"))[7:43].decode()
            prompt = (await call("POST", f"/chats/{chat}/prompter_message", '{"content": "x"}'))[7:43].decode()
            request = f'{{"parent_id": "{prompt}", "model_config_name": "_lorem"}}'
            message = (await call("POST", f"/chats/{chat}/assistant_message", request))[7:43].decode()
            stream = await call("GET", f"/chats/{chat}/messages/{message}/events")
            writer.close()
            await writer.wait_closed()
            return stream

        async def main() -> list[bytes]:
            return await asyncio.gather(*(converse(account.token) for account in accounts))

        streams = asyncio.run(main())
        assert sum(b'"event_type": "message"' in stream for stream in streams) == count
        server.wait_until(lambda: server.connections == 0)


def test_a_stream_goes_on_while_others_are_asked(server: Server, inference: Inference) -> None:
    hold = Hold()
    server.script(Answer(then=hold))
    with inference.events(*asked(inference)) as reply:
        assert read_stream(inference, *asked(inference))[-1]["event_type"] == "message"
        hold.release()
        assert b'"event_type": "message"' in reply.read()
