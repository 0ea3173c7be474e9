"""What cannot be used is refused at once, by name, before any request."""

import math
from pathlib import Path
from typing import Any

import pytest

from oa_protocol import Cleanup, Client, Timeouts
from oa_protocol.transports import Transport

pytestmark = pytest.mark.usefixtures("no_environment")

URL = "http://127.0.0.1:9"


def own_transport() -> Transport:
    raise NotImplementedError


@pytest.mark.clause("OA-1.3")
@pytest.mark.parametrize(
    "base_url",
    ["ftp://x", "x", "http://", "http://x?y", "http://x#y", "http://user:pw@x", "http://x\r\ny", "http://x:99999"],
)
def test_a_bad_base_url(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        Client(base_url)


def test_no_base_url() -> None:
    with pytest.raises(ValueError, match="OA_URL"):
        Client()


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"api": "webseite"}, ValueError, "api"),
    ({"retries": -1}, ValueError, "retries"),
    ({"retries": 1.5}, TypeError, "retries"),
    ({"retries": True}, TypeError, "retries"),
    ({"retries": "2"}, TypeError, "retries"),
    ({"timeouts": 30}, TypeError, "timeouts"),
    ({"cleanup": 30}, TypeError, "cleanup"),
    ({"cookies": {"a": "b\r\nc: d"}}, ValueError, "cookie 'a'"),
    ({"cookies": {"a=b": "c"}}, ValueError, "cookie"),
    ({"token": "a\r\nb"}, ValueError, "token"),
    ({"proxy": "http://localhost:1\r\nx: y"}, ValueError, "proxy"),
    ({"proxy": "http://löcalhost:1"}, ValueError, "proxy"),
    ({"proxy": "ftp://localhost:1"}, ValueError, "proxy"),
    ({"proxy": "http://localhost:port"}, ValueError, "proxy"),
    ({"proxy": "http://localhost:1", "transport": own_transport}, ValueError, "proxy"),
]


@pytest.mark.clause("OA-2.4")
@pytest.mark.parametrize(("arguments", "error", "name"), REFUSED, ids=lambda value: ascii(value)[:40].replace("\\", ""))
def test_a_bad_argument_of_the_client(arguments: dict[str, Any], error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name) as caught:
        Client(URL, **arguments)
    assert type(caught.value) is error


@pytest.mark.clause("OA-4.6")
@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"sampling": {"temprature": 1}}, TypeError, "temprature"),
        ({"sampling": {"temperature": math.nan}}, ValueError, "temperature"),
        ({"sampling": {"top_p": math.inf}}, ValueError, "top_p"),
        ({"sampling": {"top_k": 1.5}}, TypeError, "top_k"),
        ({"sampling": {"max_new_tokens": None}}, TypeError, "max_new_tokens"),
        ({"model": 5}, TypeError, "model"),
        ({"system_prompt": "a\0b"}, ValueError, "system_prompt"),
        ({"plugins": ["x"]}, TypeError, "plugins"),
    ],
)
def test_a_bad_argument_of_a_chat(arguments: dict[str, Any], error: type[Exception], name: str) -> None:
    client = Client(URL)
    with pytest.raises(error, match=name):
        client.chat(**arguments)


@pytest.mark.clause("OA-4.4")
@pytest.mark.parametrize(("text", "error"), [("a\0b", ValueError), ("\ud800", ValueError), (b"x", TypeError)])
def test_a_prompt_that_no_server_can_store(text: Any, error: type[Exception]) -> None:
    chat = Client(URL).chat()
    for ask in (chat.send, chat.stream):
        with pytest.raises(error, match="prompt"):
            ask(text)


@pytest.mark.parametrize("value", [-1, math.nan, -0.1])
@pytest.mark.parametrize("name", ["connect", "reply", "idle", "poll", "answer"])
def test_a_timeout_that_is_no_time(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Timeouts(**{name: value})


@pytest.mark.parametrize("value", ["1", True])
@pytest.mark.parametrize("name", ["connect", "reply", "idle", "poll", "answer"])
def test_a_timeout_that_is_no_number(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        Timeouts(**{name: value})


def test_only_the_answer_s_timeout_may_be_none() -> None:
    assert Timeouts(answer=None).answer is None
    with pytest.raises(TypeError, match="reply"):
        Timeouts(reply=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"drain": -1}, ValueError),
        ({"timeout": math.nan}, ValueError),
        ({"attempts": 0}, ValueError),
        ({"attempts": 1.5}, TypeError),
        ({"attempts": math.inf}, TypeError),
        ({"timeout": None}, TypeError),
    ],
)
def test_a_cleanup_that_is_none(arguments: dict[str, Any], error: type[Exception]) -> None:
    (name,) = arguments
    with pytest.raises(error, match=name):
        Cleanup(**arguments)


@pytest.mark.parametrize("scheme", ["socks5", "SOCKS5"])
def test_a_socks_proxy_without_its_package_is_an_error(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    with pytest.raises(ValueError, match="a socks proxy needs another package"):
        Client(URL, proxy=f"{scheme}://localhost:1080")


def test_a_cookies_file_is_not_read_before_it_is_needed(tmp_path: Path) -> None:
    Client(URL, cookies=tmp_path / "cookies.txt")
