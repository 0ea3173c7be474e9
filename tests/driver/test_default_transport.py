"""Which transport a client has that is given none."""

import sys

import pytest

from oa_protocol.transports.default import default_transport_factory
from oa_protocol.transports.fast.httptools import HttptoolsTransport
from oa_protocol.transports.httpx import HttpxTransport


@pytest.mark.parametrize("proxy", [None, "http://localhost:1", "https://localhost:1"])
def test_it_is_httptools_if_that_is_installed(proxy: str | None) -> None:
    assert isinstance(default_transport_factory(proxy=proxy)(), HttptoolsTransport)


@pytest.mark.parametrize("proxy", [None, "http://localhost:1"])
def test_it_is_httpx_if_httptools_is_not_installed(monkeypatch: pytest.MonkeyPatch, proxy: str | None) -> None:
    monkeypatch.setitem(sys.modules, "httptools", None)
    assert isinstance(default_transport_factory(proxy=proxy)(), HttpxTransport)


def test_each_call_makes_another() -> None:
    factory = default_transport_factory()
    assert factory() is not factory()


@pytest.mark.parametrize(
    "proxy", ["http://localhost:1\r\nx: y", "http://löcalhost:1", "ftp://localhost:1", "socks9://x"]
)
def test_a_proxy_that_cannot_be_used_is_refused_at_once(proxy: str) -> None:
    with pytest.raises(ValueError, match="proxy"):
        default_transport_factory(proxy=proxy)
